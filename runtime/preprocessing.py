"""From images to the tensor that a graph takes: sizes, resizing and normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from .errors import OptionError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

InputFormat = Literal["uint8", "float"]


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it.

    Attributes:
        height: pixels of the network's input.
        width: pixels of the network's input.
        mean: per channel (R, G, B), of pixel values scaled to 0..1; subtracted.
        std: per channel, of pixel values scaled to 0..1; divided by.
        input: ``uint8``: the graph takes ``(N, height, width, 3) uint8, RGB`` and normalises inside;
            ``float``: it takes ``(N, 3, height, width) float32``, normalised by the caller (the runtime does it).
    """

    height: int = 224
    width: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    input: InputFormat = "uint8"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: a size or a standard deviation is not positive, or a count of channels is not 3.
        """
        if self.height < 1 or self.width < 1:
            raise OptionError(f"image size {self.height}x{self.width}: both must be at least 1")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise OptionError(f"mean and std need three values (R, G, B), got {self.mean} and {self.std}")
        if not all(value > 0 for value in self.std):
            raise OptionError(f"std {self.std}: every value must be greater than 0")
        if self.input not in get_args(InputFormat):
            raise OptionError(f"input {self.input!r}: choose {' or '.join(get_args(InputFormat))}")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
            "input": self.input,
            "resize": "bilinear",
            "channels": "RGB",
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read :meth:`to_dict`'s result back; KeyError, TypeError or ValueError where it is malformed."""
        return cls(
            height=int(data["height"]),
            width=int(data["width"]),
            mean=cast("tuple[float, float, float]", tuple(float(value) for value in data["mean"])),
            std=cast("tuple[float, float, float]", tuple(float(value) for value in data["std"])),
            input=data["input"],
        )
