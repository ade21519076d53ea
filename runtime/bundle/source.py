"""What a graph takes that resizes by itself: frames of a camera, with their size, layout and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mtl_deploy.runtime.errors import OptionError

from .schema import MOST_PIXELS, MOST_SIDE

SourceLayout = Literal["rgb", "bgr", "gray", "nv12", "yuyv"]
SourceColour = Literal["bt601", "bt601-full", "bt709", "bt709-full"]

LAYOUTS: tuple[SourceLayout, ...] = get_args(SourceLayout)
COLOURS: tuple[SourceColour, ...] = get_args(SourceColour)
CHROMA: tuple[SourceLayout, ...] = ("nv12", "yuyv")
"""The layouts of luma and chroma, whose matrix and range must be known."""


@dataclass(frozen=True)
class Source:
    """Frames as a camera gives them, all of one size.

    Attributes:
        height: pixels of a frame.
        width: pixels of a frame.
        layout: ``rgb`` or ``bgr``: ``(height, width, 3) uint8``; ``gray``: ``(height, width, 1)``; ``nv12``: ``(height * 3 / 2,
            width)``, the plane of Y, then U and V of 2x2 pixels side by side; ``yuyv``: ``(height, width, 2)``, Y, and in turn
            the U and the V of two pixels.
        colour: of ``nv12`` and ``yuyv``: the matrix, and whether values have the full range (``-full``: 0 to 255) or the
            limited one (Y from 16 to 235). None: of the others.
    """

    height: int
    width: int
    layout: SourceLayout = "bgr"
    colour: SourceColour | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: a size is out of range or odd where chroma is shared by pixels, or layout and colour do not fit together.
        """
        if not (1 <= self.height <= MOST_SIDE and 1 <= self.width <= MOST_SIDE):
            raise OptionError(f"source {self.size}: both sides must be 1 to {MOST_SIDE}")
        if self.height * self.width > MOST_PIXELS:
            raise OptionError(f"source {self.size}: frames have {MOST_PIXELS} pixels at most")
        if self.layout not in LAYOUTS:
            raise OptionError(f"layout {self.layout!r} of the source: choose {', '.join(LAYOUTS)}")
        if self.layout not in CHROMA:
            if self.colour is not None:
                raise OptionError(
                    f"source colour {self.colour} with layout {self.layout}: only {' and '.join(CHROMA)} have a matrix; "
                    "leave it out"
                )
            return
        if self.colour is None:
            object.__setattr__(self, "colour", "bt601")
        if self.colour not in COLOURS:
            raise OptionError(f"source colour {self.colour!r}: choose {', '.join(COLOURS)}")
        if self.width % 2 or (self.layout == "nv12" and self.height % 2):
            sides = "both sides" if self.layout == "nv12" else "the width"
            raise OptionError(
                f"source {self.size} with layout {self.layout}: pixels share their chroma, so {sides} must be even"
            )

    @property
    def size(self) -> str:
        """For people: height and width, as ``--source`` takes them."""
        return f"{self.height}x{self.width}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one frame."""
        return shape_of(self.layout, self.height, self.width)

    @property
    def description(self) -> str:
        """For people: ``frames of 720x1280 in nv12 (bt601)``."""
        return f"frames of {self.size} in {self.layout}{f' ({self.colour})' if self.colour else ''}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        found: dict[str, Any] = {"height": self.height, "width": self.width, "layout": self.layout}
        return found | ({"colour": self.colour} if self.colour else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Source:
        """Read :meth:`to_dict`'s result back; KeyError, TypeError or OptionError where it is malformed.

        Raises:
            OptionError: the values do not fit together; a record of luma and chroma must name its colour.
        """
        if data["layout"] in CHROMA and data.get("colour") is None:
            raise OptionError(
                f"source of layout {data['layout']} without its colour: one of {', '.join(COLOURS)} is needed"
            )
        return cls(int(data["height"]), int(data["width"]), data["layout"], data.get("colour"))


def shape_of(layout: SourceLayout, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of one frame."""
    if layout == "nv12":
        return height * 3 // 2, width
    return height, width, {"gray": 1, "yuyv": 2}.get(layout, 3)
