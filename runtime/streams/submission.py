"""How a frame is to be taken: the order of its colours, and boxes to cut out of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.images.camera import known_layout

from .tracks import Track


@dataclass(frozen=True)
class Submission:
    """What comes with a frame.

    Attributes:
        layout: of an array; None: the model's.
        boxes: to cut out, ``(x, y, width, height)`` each; None: the whole frame.
        margin: that is cut out around each box, a share of its size.
        keys: what the caller recognises the object in each box by; None: nothing.

    Raises:
        OptionError: there is no such layout, or keys and boxes do not fit together.
    """

    layout: str | None = None
    boxes: Sequence[Sequence[float]] | None = None
    margin: float = 0.0
    keys: Sequence[Hashable] | None = None

    def __post_init__(self) -> None:
        known_layout(self.layout)
        if self.boxes is None:
            if self.margin or self.keys is not None:
                name = "keys" if self.keys is not None else "margin"
                raise OptionError(f"{name}= belongs to boxes, and there are none; pass boxes=, or leave it out")
            return
        object.__setattr__(self, "boxes", tuple(self.boxes))
        if self.keys is None:
            return
        object.__setattr__(self, "keys", tuple(self.keys))
        if len(self.keys) != len(self.boxes):
            raise OptionError(f"got {len(self.keys)} keys for {len(self.boxes)} boxes; give each box one")
        try:
            distinct = len(set(self.keys))
        except TypeError as error:
            raise OptionError(f"keys={list(self.keys)!r}: {error}; use names or numbers") from error
        if distinct < len(self.keys):
            raise OptionError(f"keys={list(self.keys)!r}: each box needs a key of its own; leave keys out for none")

    def identities(self, source: Hashable) -> list[Hashable]:
        """Return whose values a frame of this source gives: the source itself, or the objects in its boxes."""
        if self.keys is not None:
            return [Track(source, key) for key in self.keys]
        return [source] if self.boxes is None or self.boxes else []


WHOLE = Submission()
"""A whole frame, as most are."""
