"""From images to the tensor that a graph takes: size, resizing and normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mtl_deploy.runtime.errors import OptionError

from .schema import MOST_CHANNELS
from .source import Source

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

InputFormat = Literal["uint8", "float"]
Fit = Literal["stretch", "letterbox", "crop"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
Order = str | int

NAMED_ORDERS = {"rgb": 3, "bgr": 3, "gray": 1}
"""Channels of each order that has a name."""

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
        mean: per channel, in the network's order, of pixel values scaled to 0..1; subtracted.
        std: per channel, in the network's order, of pixel values scaled to 0..1; divided by.
        input: ``uint8``: the graph takes ``(N, height, width, C) uint8``, RGB where C is 3, and normalises inside;
            ``float``: it takes ``(N, C, height, width) float32``, in the network's order and normalised by the caller (the runtime
            does it).
        fit: how an image of another size is brought to the network's: ``stretch``: each axis by its own factor;
            ``letterbox``: both by one factor, centred, the border filled with the mean colour; ``crop``: resized to
            ``resize_to``, then its centre cut out, as torchvision's ``Resize`` and ``CenterCrop`` do.
        multiple: 0: the graph's height and width are fixed. Otherwise they are free, each a multiple of this (the network's
            largest stride), and ``height`` and ``width`` are the default, for verification, calibration and benchmarks.
        resize_to: for ``crop``: pixels of the shorter side before the crop, ``(256,)``, or height and width, ``(256, 256)``, each
            by its own factor; empty for the others.
        interpolation: of the resizing, antialiased as Pillow does it: ``bilinear``, ``bicubic`` or ``nearest`` (which no
            release antialiases).
        channels: what the network was trained on: ``rgb``, ``bgr`` (images are still RGB; the graph, or for ``float`` the
            runtime, swaps them), ``gray``, or the number of other channels. None: by the length of ``mean``: ``gray`` for 1,
            ``rgb`` for 3, else the number.
        source: None: the graph takes images of the network's size. Otherwise it takes these frames of a camera, and converts,
            resizes, and crops or letterboxes them itself.
    """

    height: int = 224
    width: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    input: InputFormat = "uint8"
    fit: Fit = "stretch"
    multiple: int = 0
    resize_to: tuple[int, ...] = ()
    interpolation: Interpolation = "bilinear"
    channels: Order | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: a size or a standard deviation is not positive, mean or std has another number of values than there are
                channels, they are for pixel values from 0 to 255, the default size is not a multiple of ``multiple``, or a crop has
                no size to resize to, or free sizes; or a graph that takes frames has free sizes, a float input, or neither colours
                nor gray.
        """
        if self.height < 1 or self.width < 1:
            raise OptionError(f"image size {self.height}x{self.width}: both must be at least 1")
        object.__setattr__(self, "channels", order_of(self.channels, len(self.mean)))
        wanted = count_of(self.order)
        if len(self.mean) != wanted or len(self.std) != wanted:
            raise OptionError(
                f"mean {shown(self.mean)} and std {shown(self.std)}: each needs {numbers(wanted)}, one per channel "
                f"({self.order})"
            )
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
        self._check_source()

    def _check_source(self) -> None:
        if self.source is None:
            return
        if self.multiple:
            raise OptionError(
                "a source with free sizes: the graph resizes frames to one size; leave the free sizes out, or the source"
            )
        if self.input != "uint8":
            raise OptionError(
                f"a source with input {self.input!r}: frames are uint8; use that, or leave the source out"
            )
        if self.channel_count not in (1, 3):
            raise OptionError(
                f"a source for a network of {self.channel_count} channels: frames have colours or gray, so it must take rgb, bgr "
                "or gray"
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
    def order(self) -> Order:
        """The network's channels: ``rgb``, ``bgr``, ``gray``, or their number."""
        assert self.channels is not None  # __post_init__ sets it
        return self.channels

    @property
    def channel_count(self) -> int:
        """The number of channels of an image."""
        return len(self.mean)

    @property
    def seen(self) -> Preprocessing:
        """The same without a source: how an image of any size is brought to what the network sees."""
        return self if self.source is None else replace(self, source=None)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image as it is kept, ``uint8``: ``(height, width, C)`` of the network's size, or a frame's."""
        return (self.height, self.width, self.channel_count) if self.source is None else self.source.shape

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image as the graph takes it; planes where :attr:`input` is ``float``."""
        return (self.channel_count, self.height, self.width) if self.input == "float" else self.image_shape

    @property
    def colours(self) -> str:
        """For messages, after a shape: ``, RGB`` or ``, gray``; nothing for other channels."""
        return {"rgb": ", RGB", "bgr": ", RGB", "gray": ", gray"}.get(str(self.order), "")

    @property
    def fill(self) -> tuple[int, ...]:
        """The colour around an image, per channel of the image (R, G, B), in 0..255.

        It is the mean in a letterbox, black where a crop is larger than the image.
        """
        if self.fit == "crop":
            return (0,) * self.channel_count
        colour = tuple(min(max(round(255 * value), 0), 255) for value in self.mean)
        return colour[::-1] if self.order == "bgr" else colour

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
            "input": self.input,
            "resize": self.interpolation,
            "channels": self.order.upper()
            if self.order in ("rgb", "bgr") and isinstance(self.order, str)
            else self.order,
            "fit": self.fit,
            "multiple": self.multiple,
            "resize_to": list(self.resize_to),
        } | ({} if self.source is None else {"source": self.source.to_dict()})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Read :meth:`to_dict`'s result back; KeyError, TypeError or ValueError where it is malformed.

        Earlier releases wrote no ``fit``, ``multiple``, ``resize_to``, ``channels`` or ``source``: the defaults are meant.
        """
        return cls(
            height=int(data["height"]),
            width=int(data["width"]),
            mean=tuple(float(value) for value in data["mean"]),
            std=tuple(float(value) for value in data["std"]),
            input=data["input"],
            fit=data.get("fit", "stretch"),
            multiple=int(data.get("multiple", 0)),
            resize_to=tuple(int(value) for value in data.get("resize_to", ())),
            interpolation=data.get("resize", "bilinear"),
            channels=data.get("channels"),
            source=None if data.get("source") is None else Source.from_dict(data["source"]),
        )


def order_of(channels: Order | None, count: int) -> Order:
    """Return the order of channels by its one name: ``RGB`` is ``rgb``, 3 is ``rgb``, 1 is ``gray``.

    Args:
        channels: as somebody wrote it; None: not at all.
        count: of the channels, where ``channels`` is None.

    Raises:
        OptionError: there is no such order.
    """
    found: Order = count if channels is None else channels
    if isinstance(found, str):
        found = found.strip().lower()
        found = int(found) if found.isdecimal() and found.isascii() and len(found) < 9 else found
    if isinstance(found, str) and found in NAMED_ORDERS:
        return found
    if isinstance(found, str) or not 1 <= found <= MOST_CHANNELS:
        raise OptionError(f"channels {channels!r}: write rgb, bgr, gray, or a number from 1 to {MOST_CHANNELS}")
    return {1: "gray", 3: "rgb"}.get(found, int(found))


def count_of(order: Order) -> int:
    """Return the number of channels of an order."""
    return order if isinstance(order, int) else NAMED_ORDERS[order]


def numbers(count: int, noun: str = "number") -> str:
    """For messages: ``1 number``, ``4 numbers``, ``2 channels``."""
    return f"{count} {noun}{'s' if count > 1 else ''}"


def of_bytes(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether mean and std can only be of pixel values from 0 to 255: no image has such ones at 0 to 1."""
    return max(mean) > _LARGEST_MEAN or max(std) > _LARGEST_STD


def as_fractions(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std of pixel values from 0 to 1 where :func:`of_bytes` says that one of them is of 0 to 255.

    One of the two that is already of 0 to 1 stays: a mean up to 1 beside a std above 4, a std below 1 beside a mean above 1.
    """
    keep_mean, keep_std = max(mean) <= _LARGEST_MEAN and any(mean), max(std) < 1
    return (
        tuple(value / (1 if keep_mean else 255) for value in mean),
        tuple(value / (1 if keep_std else 255) for value in std),
    )


def shown(values: Sequence[float]) -> str:
    """Return numbers as an option takes them, such as ``0.485,0.456,0.406``."""
    return ",".join(f"{value:.6g}" for value in values)
