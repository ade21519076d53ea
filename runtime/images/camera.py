"""Frames of a camera for graphs that resize by themselves: checked, unpacked into colours, and made of pictures.

Colours of luma and chroma are converted as OpenCV's ``cvtColor`` does it (``imgproc/src/color_yuv.simd.hpp``): chroma by nearest
neighbours, values rounded and clipped to 8 bits at the frame's own size. Coefficients have 14 bits behind the point here, so that
float32 holds every sum exactly and a graph gives the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.source import CHROMA, LAYOUTS, Source, SourceColour
from mtl_deploy.runtime.errors import ImageError, OptionError

from .layout import layout_of

Pixels = npt.NDArray[np.uint8]

POINT = 14
"""Bits behind the point of the coefficients."""
MIDDLE = 128
"""Chroma of gray."""
_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # of red and blue in luma; ITU-R BT.601-7, BT.709-6
_OPENCV = (1.164, (1.596, 0.0), (-0.813, -0.391), (0.0, 2.018))  # BT.601 to three places: color_yuv.simd.hpp


class ToColours(NamedTuple):
    """How luma and chroma become colours, in integers over ``2 ** POINT``.

    Attributes:
        black: the luma of black; what is darker counts as black.
        luma: the factor of luma.
        chroma: the factors of V and U, for red, green and blue.
    """

    black: int
    luma: int
    chroma: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@lru_cache(maxsize=4)
def to_colours(colour: SourceColour) -> ToColours:
    """Return the conversion of a matrix and range. That of ``bt601`` is OpenCV's, which rounds BT.601's to three places."""
    matrix, _, full = colour.partition("-")
    if colour == "bt601":
        luma, red, green, blue = _OPENCV
    else:
        of_red, of_blue = _WEIGHTS[matrix]
        of_green = 1 - of_red - of_blue
        wide, deep = (1.0, 1.0) if full else (255 / 219, 255 / 224)
        luma = wide
        red, blue = (2 * (1 - of_red) * deep, 0.0), (0.0, 2 * (1 - of_blue) * deep)
        green = (-2 * of_red * (1 - of_red) / of_green * deep, -2 * of_blue * (1 - of_blue) / of_green * deep)

    def whole(pair: tuple[float, float]) -> tuple[int, int]:
        return round(pair[0] * 2**POINT), round(pair[1] * 2**POINT)

    return ToColours(0 if full else 16, round(luma * 2**POINT), (whole(red), whole(green), whole(blue)))


def unpacked(frame: Pixels, source: Source) -> Pixels:
    """Return a frame's colours ``(height, width, 3) uint8`` in R, G, B; of gray ``(height, width, 1)``.

    Args:
        frame: of the source's shape.
        source: its layout and colour.
    """
    if source.colour is None:
        return frame[..., ::-1] if source.layout == "bgr" else frame
    if source.layout == "nv12":
        luma, pairs = frame[: source.height], frame[source.height :].reshape(source.height // 2, source.width // 2, 2)
        chroma = np.repeat(np.repeat(pairs, 2, axis=0), 2, axis=1)
    else:
        luma, pairs = frame[..., 0], frame[..., 1].reshape(source.height, source.width // 2, 2)
        chroma = np.repeat(pairs, 2, axis=1)
    of = to_colours(source.colour)
    bright = np.maximum(luma.astype(np.int32) - of.black, 0) * of.luma + (1 << POINT - 1)
    u, v = (chroma[..., plane].astype(np.int32) - MIDDLE for plane in (0, 1))
    planes = [bright + of_v * v + of_u * u for of_v, of_u in of.chroma]
    colours: Pixels = np.clip(np.stack(planes, axis=-1) >> POINT, 0, 255).astype(np.uint8)
    return colours


def packed(pixels: Pixels, source: Source) -> Pixels:
    """Return a frame of the source made of a picture: the inverse of :func:`unpacked`, with chroma averaged over its pixels.

    Args:
        pixels: ``(height, width, 3) uint8`` in R, G, B, of the source's size; for gray ``(height, width, 1)``.
        source: its layout and colour.
    """
    if source.colour is None:
        return np.ascontiguousarray(pixels[..., ::-1] if source.layout == "bgr" else pixels)
    of = to_colours(source.colour)
    matrix = np.array([(of.luma, of_u, of_v) for of_v, of_u in of.chroma]) / 2**POINT
    values: npt.NDArray[np.floating[Any]] = pixels.astype(np.float32) @ np.linalg.inv(matrix).T.astype(np.float32)
    luma = _bytes(values[..., 0] + of.black)
    chroma = values[..., 1:] + MIDDLE
    chroma = chroma[:, ::2] / 2 + chroma[:, 1::2] / 2
    if source.layout == "yuyv":
        return np.stack([luma, _bytes(chroma).reshape(source.height, source.width)], axis=-1)
    chroma = chroma[::2] / 2 + chroma[1::2] / 2
    return np.concatenate([luma, _bytes(chroma).reshape(source.height // 2, source.width)])


def _bytes(values: npt.NDArray[np.floating[Any]]) -> Pixels:
    rounded: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def picture_for(preprocessing: Preprocessing) -> Preprocessing:
    """Return how a picture becomes a frame of the source: stretched to its size, with the network's interpolation."""
    source = preprocessing.source
    assert source is not None  # callers ask only for such
    count = 1 if source.layout == "gray" else 3
    return Preprocessing(
        source.height,
        source.width,
        (0.5,) * count,
        (0.5,) * count,
        interpolation="bilinear" if preprocessing.interpolation == "nearest" else preprocessing.interpolation,
    )


def checked_frame(array: npt.NDArray[Any], source: Source) -> Pixels:
    """Return a camera's buffer as a C-contiguous frame of the source's shape.

    Args:
        array: ``uint8`` of that shape, or its bytes in one dimension; gray may lack its last one.
        source: what the graph takes.

    Raises:
        ImageError: it has another type, size or layout; says which fits.
    """
    shape = source.shape
    flat = array.shape == (int(np.prod(shape)),) or (source.layout == "gray" and array.shape == shape[:2])
    if array.dtype != np.uint8 or not (array.shape == shape or flat):
        raise ImageError(
            f"got {array.dtype} of shape {array.shape}; {expected_frame(source, array.shape, array.dtype)}"
        )
    return np.ascontiguousarray(array).reshape(shape)


def checked_frames(array: npt.NDArray[Any], source: Source) -> Pixels | None:
    """Return a batch of frames as the graph takes it, without a copy where it is C-contiguous; None where it is one frame."""
    shape = source.shape
    gray = source.layout == "gray" and array.shape[1:] == shape[:2]
    if array.dtype != np.uint8 or not (array.shape[1:] == shape or gray) or array.shape == shape:
        return None
    if not len(array):
        raise ImageError("got an empty batch; pass at least one frame")
    return np.ascontiguousarray(array).reshape(-1, *shape)


def expected_frame(source: Source, shape: tuple[int, ...], dtype: object = np.uint8) -> str:
    """For errors: what the graph takes, and the way on from an array of another shape or type."""
    batch = ", ".join(map(str, ("N", *source.shape)))
    expected = f"this graph takes {source.description}: uint8 {source.shape} or a batch ({batch})"
    if shape == source.shape and dtype != np.uint8:
        return f"{expected}. Give the camera's bytes as they are"
    layouts, sides = _read_as(shape, source)
    if not layouts:
        return f"{expected}. Set the camera to that, or pass a PIL image, which becomes such a frame"
    size, others = "x".join(map(str, sides)), " or ".join(layouts)
    if source.layout in layouts:
        return f"{expected}. The frame is {size}: set the camera to {source.size}, resize it, or export with --source {size}"
    if sides == (source.height, source.width):
        return f"{expected}. The shape is that of {others}: have the camera give {source.layout}, or export with --layout {others}"
    return (
        f"{expected}. The shape is that of {size} in {others}: set the camera to what the graph takes, or export with --source "
        f"{size} --layout {others}"
    )


def _read_as(shape: tuple[int, ...], source: Source) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the layouts whose frames may have a shape, and height and width of these; none where no layout fits."""
    if 0 in shape or len(shape) not in (2, 3):
        return (), ()
    if len(shape) == 3:
        return {1: ("gray",), 2: ("yuyv",), 3: ("rgb", "bgr")}.get(shape[2], ()), shape[:2]
    if source.layout == "gray" or shape[0] % 3 or shape[1] % 2:
        return ("gray",), shape
    return ("nv12",), (shape[0] * 2 // 3, shape[1])


def known_layout(layout: str | None) -> None:
    """Refuse what no bundle takes as a layout.

    Raises:
        OptionError: there is no such layout.
    """
    if layout is not None and str(layout).lower() not in LAYOUTS:
        raise OptionError(f"layout {layout!r}: choose {', '.join(LAYOUTS)}")


def settled_layout(layout: str | None, preprocessing: Preprocessing) -> str:
    """Return the layout of the arrays that a model is given: what the application says, or what the graph takes.

    Raises:
        OptionError: there is none of this name, or the graph takes another.
    """
    known_layout(layout)
    source = preprocessing.source
    if source is None:
        if layout is not None and str(layout).lower() in CHROMA:
            raise OptionError(
                f"layout {layout!r}: this graph takes images of colours or gray; a bundle that was exported with --source and "
                f"--layout {str(layout).lower()} takes such frames"
            )
        return layout_of("rgb" if layout is None else layout)
    if layout is not None and str(layout).lower() != source.layout:
        raise OptionError(
            f"layout {layout!r}, but this graph takes {source.description}: leave layout out and pass such frames, or export with "
            "--layout of what your frames hold"
        )
    return source.layout
