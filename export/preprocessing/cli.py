"""The options of ``mtl-export`` that say how an image is prepared for the network."""

from __future__ import annotations

import argparse

from mtl_deploy.export.options.images import DEFAULT_MULTIPLE, DEFAULT_SIZE, INTERPOLATIONS, Channels, Stated
from mtl_deploy.runtime.bundle.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Order,
    as_fractions,
    count_of,
    numbers,
    of_bytes,
    order_of,
    shown,
)
from mtl_deploy.runtime.bundle.source import COLOURS, LAYOUTS, Source
from mtl_deploy.runtime.errors import OptionError

NAMES = (
    *("image_size", "dynamic_size", "fit", "resize_to", "interpolation", "mean", "std", "pixel_range"),
    *("input", "transform", "channels", "source", "layout", "source_colour"),
)
"""The options' names in the parsed arguments."""
_UNIT, _BYTES = 1, 255


def add_preprocessing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the group ``the images``."""
    images = parser.add_argument_group("the images")
    images.add_argument(
        "--image-size", metavar="HxW", help="the network's input (default: the program's own, or 224x224)"
    )
    images.add_argument(
        "--dynamic-size",
        nargs="?",
        type=int,
        const=DEFAULT_MULTIPLE,
        default=0,
        metavar="MULTIPLE",
        help="leave height and width free, as multiples of this (default: 32, the largest stride of most networks); "
        "--image-size is "
        "then the default size",
    )
    images.add_argument(
        "--fit",
        choices=("stretch", "letterbox", "crop"),
        help="how images of another size are fitted: stretched (default), with a border, or with the centre cut out",
    )
    images.add_argument(
        "--resize-to",
        metavar="PIXELS",
        help="for --fit crop: the shorter side before the crop, usually 256 for 224x224; HxW resizes both sides",
    )
    images.add_argument(
        "--interpolation",
        choices=INTERPOLATIONS,
        help="how images are resized, with Pillow's antialiasing (default: bilinear)",
    )
    images.add_argument(
        "--channels",
        metavar="ORDER",
        help="what the network was trained on: rgb (default), bgr (images are still passed as RGB, and swapped in the graph), "
        "gray, or the number of other channels; the default is as many as --mean has numbers",
    )
    images.add_argument(
        "--mean",
        metavar="R,G,B",
        help="for pixel values from 0 to 1, one number per channel in the network's order (default: ImageNet's)",
    )
    images.add_argument("--std", metavar="R,G,B", help="standard deviations, in the same form (default: ImageNet's)")
    images.add_argument(
        "--pixel-range",
        type=int,
        choices=(_UNIT, _BYTES),
        default=_UNIT,
        help="255: --mean and --std are for pixel values from 0 to 255",
    )
    images.add_argument(
        "--transform",
        metavar="LIBRARY:NAME",
        help="take all of these from the transform of published weights, such as torchvision:ResNet50_Weights.IMAGENET1K_V2",
    )
    images.add_argument(
        "--source",
        metavar="HxW",
        help="the graph takes frames of a camera of this size, converts and resizes them itself, so that a GPU does that work "
        "(default: the runtime resizes images on the processor)",
    )
    images.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="for --source: what a frame holds, which is independent of --channels: rgb, bgr (OpenCV's), gray, nv12 or yuyv "
        "(default: bgr)",
    )
    images.add_argument(
        "--source-colour",
        choices=COLOURS,
        help="for --layout nv12 and yuyv: the matrix, and -full for values from 0 to 255 (default: bt601, as OpenCV converts)",
    )
    images.add_argument(
        "--input",
        choices=("uint8", "float"),
        default="uint8",
        help="uint8: (N,H,W,3) RGB, normalised in the graph (default); float: (N,3,H,W) float32, normalised by the caller (3: "
        "the number of channels)",
    )


def stated(arguments: argparse.Namespace) -> Stated:
    """Return what the user said about the preprocessing.

    Raises:
        OptionError: a value cannot be used.
    """
    size = None if arguments.image_size is None else _size(arguments.image_size)
    multiple = _multiple(arguments.dynamic_size, *(size or DEFAULT_SIZE))
    if multiple and arguments.fit == "crop":
        raise OptionError(
            "--fit crop with --dynamic-size: a crop has one size; use --fit letterbox or stretch, or leave --dynamic-size out"
        )
    if arguments.transform is None:
        if arguments.fit == "crop" and arguments.resize_to is None:
            raise OptionError(
                "--fit crop needs --resize-to, the pixels of the shorter side before the crop: usually 256 for 224x224"
            )
        if arguments.resize_to is not None and arguments.fit != "crop":
            raise OptionError(
                f"--resize-to {arguments.resize_to}: only --fit crop resizes to another size first; add it, or leave the option out"
            )
    order, mean, std = _colours(arguments.channels, arguments.mean, arguments.std)
    if arguments.pixel_range == _BYTES:
        mean, std = _of_bytes(mean, std)
    elif of_bytes(own := (mean or _like(IMAGENET_MEAN, order)), others := (std or _like(IMAGENET_STD, order))):
        meant_mean, meant_std = as_fractions(own, others)
        pairs = (("--mean", own, meant_mean), ("--std", others, meant_std))
        wrong = [f"{option} {shown(values)}" for option, values, meant in pairs if values != meant]
        raise OptionError(
            f"{' and '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} for pixel values from 0 to 255, and these options are "
            f"for 0 to 1: write --mean {shown(meant_mean)} --std {shown(meant_std)}, or give both for 0 to 255 with --pixel-range "
            f"{_BYTES}"
        )
    return Stated(
        size=size,
        fit=arguments.fit,
        resize_to=None if arguments.resize_to is None else _resize_to(arguments.resize_to),
        interpolation=arguments.interpolation,
        channels=order,
        mean=mean,
        std=std,
        input=arguments.input,
        multiple=multiple,
        source=_source(arguments, order, multiple),
        transform=arguments.transform,
    )


def _source(arguments: argparse.Namespace, order: Order | None, multiple: int) -> Source | None:
    """Return the frames that the graph is to take.

    Raises:
        OptionError: the options do not fit together.
    """
    if arguments.source is None:
        for option, value in (("--layout", arguments.layout), ("--source-colour", arguments.source_colour)):
            if value is not None:
                raise OptionError(
                    f"{option} {value} is of the frames that a graph takes and resizes itself: give their size with --source, such "
                    "as --source 720x1280; without it, load(layout=) says what arrays hold"
                )
        return None
    height, by, width = arguments.source.lower().partition("x")
    if not (by and height.isdecimal() and width.isdecimal()):
        raise OptionError(f"--source {arguments.source!r}: write HEIGHTxWIDTH of the camera's frames, such as 720x1280")
    if multiple:
        raise OptionError("--source with --dynamic-size: the graph resizes frames to one size; leave one of them out")
    if arguments.input != "uint8":
        raise OptionError(f"--source with --input {arguments.input}: frames are uint8; leave --input out")
    if order is not None and count_of(order) not in (1, 3):
        raise OptionError(
            f"--source for a network of {count_of(order)} channels: frames have colours or gray; leave it out, and pass arrays of "
            "the network's size"
        )
    try:
        return Source(int(height), int(width), arguments.layout or "bgr", arguments.source_colour)
    except OptionError as error:
        raise OptionError(f"--source {arguments.source}: {error}") from None


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    try:
        return int(height), int(width or height)
    except ValueError:
        raise OptionError(f"--image-size {text!r}: write HEIGHTxWIDTH in pixels, such as 224x224") from None


def _resize_to(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        found = ()
    if len(found) not in (1, 2) or min(found) < 1:
        raise OptionError(f"--resize-to {text!r}: write the shorter side in pixels, such as 256, or HEIGHTxWIDTH")
    return found


def _multiple(multiple: int, height: int, width: int) -> int:
    if multiple < 0:
        raise OptionError(f"--dynamic-size {multiple}: write the network's largest stride, 1 or more")
    if multiple and (height % multiple or width % multiple):
        raise OptionError(
            f"--image-size {height}x{width}: with --dynamic-size {multiple}, height and width must be multiples of {multiple}"
        )
    return multiple


def _colours(
    channels: str | None, mean: str | None, std: str | None
) -> tuple[Order | None, Channels | None, Channels | None]:
    """Return the order of channels, mean and std, as far as they were given; their numbers of channels agree.

    Raises:
        OptionError: they do not, or are malformed.
    """
    order = None
    if channels is not None:
        try:
            order = order_of(channels, 3)
        except OptionError as error:
            raise OptionError(f"--{error}") from None
    given = {
        option: _numbers(option, text, order) for option, text in (("--mean", mean), ("--std", std)) if text is not None
    }
    count = count_of(order) if order is not None else len(next(iter(given.values()), IMAGENET_MEAN))
    why = f"--channels {channels}" if order is not None else f"{next(iter(given), '--mean')} has {numbers(count)}"
    for option, values in given.items():
        if len(values) != count:
            other = "" if order is not None or count != 3 else "; with other channels than R, G and B, give both"
            raise OptionError(
                f"{option} {shown(values)} has {numbers(len(values))}, and {why}: write {numbers(count)}, such as "
                f"{shown([0.5] * count)}{other}"
            )
    if given and count != 3 and len(given) < 2:
        (option,) = {"--mean", "--std"} - given.keys()
        raise OptionError(
            f"{why}: give {option} too, {numbers(count)} such as {shown([0.5] * count)}; "
            "the default is ImageNet's, three numbers for R, G and B"
        )
    if order is None and count != 3:
        order = order_of(None, count)
    return order, given.get("--mean"), given.get("--std")


def _numbers(option: str, text: str, order: Order | None) -> Channels:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        count = 3 if order is None else count_of(order)
        expected = "one number per channel" if order is None else numbers(count)
        raise OptionError(f"{option} {text!r}: write {expected}, such as {shown([0.5] * count)}") from None


def _like(values: Channels, order: Order | None) -> Channels:
    """Return values for R, G and B in the network's order."""
    return values[::-1] if order == "bgr" else values


def _of_bytes(mean: Channels | None, std: Channels | None) -> tuple[Channels, Channels]:
    """Convert mean and std for pixel values from 0 to 255 to those for 0 to 1."""
    if mean is None or std is None:
        raise OptionError(
            f"--pixel-range {_BYTES} says which range --mean and --std are for: give both (a std of 1,1,1 if nothing is divided)"
        )
    if any(mean) and max(mean) <= 1:
        raise OptionError(
            f"--pixel-range {_BYTES} with --mean {shown(mean)}: that is a mean for pixel values from "
            "0 to 1; leave --pixel-range out"
        )
    return tuple(value / _BYTES for value in mean), tuple(value / _BYTES for value in std)
