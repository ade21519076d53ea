"""From images to the tensor that a graph takes: size, resizing and normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from mtl_deploy.runtime.errors import OptionError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

InputFormat = Literal["uint8", "float"]
Fit = Literal["stretch", "letterbox", "crop"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]

_LARGEST_MEAN = 1.0
_LARGEST_STD = (
    4.0  # of values in 0..1 it is 0.5 at most, and 1 where nothing is divided; of values in 0..255 seldom below 40
)


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
        fit: how an image of another size is brought to the network's: ``stretch``: each axis by its own factor;
            ``letterbox``: both by one factor, centred, the border filled with the mean colour; ``crop``: resized to
            ``resize_to``, then its centre cut out, as torchvision's ``Resize`` and ``CenterCrop`` do.
        multiple: 0: the graph's height and width are fixed. Otherwise they are free, each a multiple of this (the network's
            largest stride), and ``height`` and ``width`` are the default, for verification, calibration and benchmarks.
        resize_to: for ``crop``: pixels of the shorter side before the crop, ``(256,)``, or height and width, ``(256, 256)``, each
            by its own factor; empty for the others.
        interpolation: of the resizing, antialiased as Pillow does it: ``bilinear``, ``bicubic`` or ``nearest`` (which no
            release antialiases).
    """

    height: int = 224
    width: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    input: InputFormat = "uint8"
    fit: Fit = "stretch"
    multiple: int = 0
    resize_to: tuple[int, ...] = ()
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: a size or a standard deviation is not positive, the number of channels is not 3, mean and std are for
                pixel values from 0 to 255, the default size is not a multiple of ``multiple``, or a crop has no size to resize
                to, or free sizes.
        """
        if self.height < 1 or self.width < 1:
            raise OptionError(f"image size {self.height}x{self.width}: both must be at least 1")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise OptionError(f"mean and std need three values (R, G, B), got {self.mean} and {self.std}")
        if not all(value > 0 and math.isfinite(value) for value in self.std):
            raise OptionError(f"std {self.std}: every value must be greater than 0")
        if not all(map(math.isfinite, self.mean)):
            raise OptionError(f"mean {self.mean}: every value must be a number")
        if of_bytes(self.mean, self.std):
            mean, std = as_fractions(self.mean, self.std)
            raise OptionError(
                f"mean {shown(self.mean)} and std {shown(self.std)} are for pixel values from 0 to 255; here they are for 0 to 1: "
                f"mean {shown(mean)} and std {shown(std)}"
            )
        if self.input not in get_args(InputFormat):
            raise OptionError(f"input {self.input!r}: choose {' or '.join(get_args(InputFormat))}")
        if self.fit not in get_args(Fit):
            raise OptionError(f"fit {self.fit!r}: choose {' or '.join(get_args(Fit))}")
        if self.interpolation not in get_args(Interpolation):
            raise OptionError(f"interpolation {self.interpolation!r}: choose {' or '.join(get_args(Interpolation))}")
        self._check_crop()
        if self.multiple < 0:
            raise OptionError(f"multiple {self.multiple}: use 0 (fixed sizes) or more")
        if self.multiple and (self.height % self.multiple or self.width % self.multiple):
            raise OptionError(
                f"image size {self.height}x{self.width}: with free sizes, both must be multiples of {self.multiple}"
            )

    def _check_crop(self) -> None:
        if self.fit != "crop":
            if self.resize_to:
                raise OptionError(
                    f"resize_to {self.resize_to}: only fit 'crop' resizes to a size other than the network's"
                )
            return
        if len(self.resize_to) not in (1, 2) or min(self.resize_to) < 1:
            raise OptionError(
                f"fit 'crop' with resize_to {self.resize_to}: give the pixels of the shorter side before the crop, (256,) for "
                "the usual crop of 224, or height and width"
            )
        if self.multiple:
            raise OptionError(
                "fit 'crop' with free sizes: a crop has one size; use 'stretch' or 'letterbox', or a fixed size"
            )

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour around an image, R, G, B in 0..255: the mean of a letterbox, black where a crop is larger than the image."""
        if self.fit == "crop":
            return 0, 0, 0
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
            "resize": self.interpolation,
            "channels": "RGB",
            "fit": self.fit,
            "multiple": self.multiple,
            "resize_to": list(self.resize_to),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read :meth:`to_dict`'s result back; KeyError, TypeError or ValueError where it is malformed.

        Records of earlier releases have no ``fit``, ``multiple`` and ``resize_to``: the defaults are meant.
        """
        return cls(
            height=int(data["height"]),
            width=int(data["width"]),
            mean=cast("tuple[float, float, float]", tuple(float(value) for value in data["mean"])),
            std=cast("tuple[float, float, float]", tuple(float(value) for value in data["std"])),
            input=data["input"],
            fit=data.get("fit", "stretch"),
            multiple=int(data.get("multiple", 0)),
            resize_to=tuple(int(value) for value in data.get("resize_to", ())),
            interpolation=data.get("resize", "bilinear"),
        )


def of_bytes(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether mean and std can only be of pixel values from 0 to 255: no image has such ones at 0 to 1."""
    return max(mean) > _LARGEST_MEAN or max(std) > _LARGEST_STD


def as_fractions(
    mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the mean and std of pixel values from 0 to 1 where :func:`of_bytes` says that one of them is of 0 to 255.

    One of the two that is already of 0 to 1 stays: a mean up to 1 beside a std above 4, a std below 1 beside a mean above 1.
    """
    keep_mean, keep_std = max(mean) <= _LARGEST_MEAN and any(mean), max(std) < 1
    red, green, blue = (value / (1 if keep_mean else 255) for value in mean)
    first, second, third = (value / (1 if keep_std else 255) for value in std)
    return (red, green, blue), (first, second, third)


def shown(values: Sequence[float]) -> str:
    """Return numbers as an option takes them, such as ``0.485,0.456,0.406``."""
    return ",".join(f"{value:.6g}" for value in values)
