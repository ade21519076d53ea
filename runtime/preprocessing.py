"""From images to the tensor that a graph takes: sizes, resizing and normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from .errors import OptionError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

InputFormat = Literal["uint8", "float"]
Fit = Literal["stretch", "letterbox"]


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
        fit: how an image of another size is brought to the network's: ``stretch``: both axes each by a factor of its own;
            ``letterbox``: both by one factor, centred, the border filled with the mean colour.
        multiple: 0: the graph's height and width are fixed. Otherwise they are free, each a multiple of this (the network's
            largest stride), and ``height`` and ``width`` are the default: of verification, calibration and benchmarks.
    """

    height: int = 224
    width: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    input: InputFormat = "uint8"
    fit: Fit = "stretch"
    multiple: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: a size or a standard deviation is not positive, a count of channels is not 3, or the default size does
                not fit the multiple.
        """
        if self.height < 1 or self.width < 1:
            raise OptionError(f"image size {self.height}x{self.width}: both must be at least 1")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise OptionError(f"mean and std need three values (R, G, B), got {self.mean} and {self.std}")
        if not all(value > 0 for value in self.std):
            raise OptionError(f"std {self.std}: every value must be greater than 0")
        if self.input not in get_args(InputFormat):
            raise OptionError(f"input {self.input!r}: choose {' or '.join(get_args(InputFormat))}")
        if self.fit not in get_args(Fit):
            raise OptionError(f"fit {self.fit!r}: choose {' or '.join(get_args(Fit))}")
        if self.multiple < 0:
            raise OptionError(f"multiple {self.multiple}: use 0 (fixed sizes) or more")
        if self.multiple and (self.height % self.multiple or self.width % self.multiple):
            raise OptionError(
                f"image size {self.height}x{self.width}: with free sizes, both must be multiples of {self.multiple}"
            )

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour, R, G, B in 0..255: of a letterbox's border."""
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in self.mean)
        return red, green, blue

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
            "fit": self.fit,
            "multiple": self.multiple,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read :meth:`to_dict`'s result back; KeyError, TypeError or ValueError where it is malformed.

        Records of earlier releases have no ``fit`` and ``multiple``: the defaults are meant.
        """
        return cls(
            height=int(data["height"]),
            width=int(data["width"]),
            mean=cast("tuple[float, float, float]", tuple(float(value) for value in data["mean"])),
            std=cast("tuple[float, float, float]", tuple(float(value) for value in data["std"])),
            input=data["input"],
            fit=data.get("fit", "stretch"),
            multiple=int(data.get("multiple", 0)),
        )
