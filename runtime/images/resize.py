"""Antialiased resizing with numpy only, equal to Pillow's.

Networks are trained on images that Pillow has resized (torchvision's ``Resize``); shrinking without antialiasing, as
``cv2.INTER_LINEAR`` does, shifts their predictions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Interpolation

Image = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_UNIT = 2.0**22  # Pillow's weights are integers over this
_VALUES = (
    1 << 18
)  # doubles at a time: they stay in the processor's cache, and a photograph does not become one large array
_WORK = (
    1 << 18
)  # multiplications of one product: beyond, OpenBLAS starts threads, and images are resized in threads already
_SPAN = 48  # source pixels of one product, about: wide enough for BLAS, narrow enough that few weights in it are 0
_USUAL = 1 << 15  # pixels along an axis, before and after together, up to which weights are kept: some MB each
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # half the filter's width, in pixels of the larger image
_CUBIC = -0.5  # Keys' parameter, as Pillow has it


class Band(NamedTuple):
    """Neighbouring target pixels, and the source pixels that they are made of.

    Attributes:
        source: the source pixels.
        target: the target pixels.
        weights: ``(target, source)``, the share of each source pixel.
    """

    source: slice
    target: slice
    weights: Weights


def resize(image: Image, height: int, width: int, interpolation: Interpolation = "bilinear") -> Image:
    """Resize ``(H, W, C) uint8`` to ``(height, width, C) uint8``, C-contiguous, each channel by itself.

    Method: Pillow's ``src/libImaging/Resample.c`` with its triangle or bicubic filter (R. Keys: Cubic Convolution Interpolation,
    1981): one axis, then the other, each with a support that grows with the reduction, weights rounded to 22 bits, and 8 bits
    in between. The sums are exact: they are integers over 2**22 that fit a double. Along one axis the result equals Pillow's to
    the bit. Along both it equals that of Pillow 13, which resizes rows first where that saves work; releases that always start
    with columns differ there, by at most one level of 255 with bilinear. ``nearest`` equals Pillow's to the bit.

    Each target pixel is made of few source pixels, so that the matrix of all weights is 0 but for a band along its diagonal: it is
    cut into small products along that band.
    """
    if interpolation == "nearest":
        rows, columns = nearest_pixels(image.shape[0], height), nearest_pixels(image.shape[1], width)
        return np.ascontiguousarray(image[rows[:, None], columns])
    across = image.shape[1] != width
    first = rows_first(image.shape[:2], (height, width))
    if across and not first:
        image = _across(image, width, interpolation)
    if image.shape[0] != height:
        image = _down(image, height, interpolation)
    if across and first:
        image = _across(image, width, interpolation)
    return np.ascontiguousarray(image)


def rows_first(size: tuple[int, ...], target: tuple[int, int]) -> bool:
    """Return whether Pillow 13 resizes along the height first: where fewer rows are left to be resized along the width.

    Args:
        size: height and width.
        target: likewise, after resizing.
    """
    return target[0] < size[0] and size[0] - target[0] > 2 * (size[1] - target[1])


def _across(image: Image, width: int, interpolation: Interpolation) -> Image:
    """Resize along the width, plane by plane, some rows at a time."""
    high, wide, channels = image.shape
    resized = np.empty((high, width, channels), np.uint8)
    bands = _bands(wide, width, interpolation)
    step = max(1, min(_VALUES // max(wide, width), _WORK // max(band.weights.size for band in bands)))
    sums = np.empty((min(step, high), width))
    for top in range(0, high, step):
        for channel in range(channels):
            rows = image[top : top + step, :, channel].astype(np.float64)
            found = sums[: len(rows)]
            for band in bands:
                np.matmul(rows[:, band.source], band.weights.T, out=found[:, band.target])
            resized[top : top + step, :, channel] = _rounded(found)
    return resized


def _down(image: Image, height: int, interpolation: Interpolation) -> Image:
    """Resize along the height, some columns at a time; channels are columns."""
    flat = image.reshape(len(image), -1)
    resized = np.empty((height, flat.shape[1]), np.uint8)
    for band in _bands(len(image), height, interpolation):
        step = max(1, min(_VALUES // max(band.weights.shape), _WORK // band.weights.size))
        for left in range(0, flat.shape[1], step):
            columns = flat[band.source, left : left + step].astype(np.float64)
            resized[band.target, left : left + step] = _rounded(band.weights @ columns)
    return resized.reshape(height, *image.shape[1:])


def _rounded(values: Weights) -> Image:
    """Return values to the nearest integer in 0..255; they are overwritten."""
    values += 0.5
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)  # which rounds down


def _bands(size: int, target: int, interpolation: Interpolation) -> tuple[Band, ...]:
    """Return the products that resize ``size`` pixels to ``target``, in order; those of usual sizes are kept."""
    return (_kept if size + target <= _USUAL else _made)(size, target, interpolation)


def _made(size: int, target: int, interpolation: Interpolation) -> tuple[Band, ...]:
    many = max(1, min(int(_SPAN * target / size), _SPAN))
    parts = (slice(start, min(start + many, target)) for start in range(0, target, many))
    return tuple(band(size, target, interpolation, part) for part in parts)


def band(size: int, target: int, interpolation: Interpolation, part: slice) -> Band:
    """Return the product that makes some of ``target`` pixels along an axis out of ``size``; not for ``nearest``."""
    scale = size / target
    stretch = max(scale, 1.0)
    support = _SUPPORT[interpolation] * stretch
    centre = (np.arange(part.start, part.stop) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.intp), 0)
    last = np.minimum((centre + support + 0.5).astype(np.intp), size)
    source = slice(int(first.min()), int(last.max()))
    pixel = np.arange(source.start, source.stop)
    distance = np.abs((pixel - centre[:, None] + 0.5) * (1 / stretch))
    weights: Weights = np.maximum(1 - distance, 0) if interpolation == "bilinear" else _cubic(distance)
    weights[(pixel < first[:, None]) | (pixel >= last[:, None])] = 0
    weights = weights / weights.sum(axis=1, keepdims=True) * _UNIT
    weights = np.trunc(weights + np.copysign(0.5, weights)) / _UNIT
    weights.flags.writeable = False
    return Band(source, part, weights)


_kept = lru_cache(maxsize=32)(_made)


def _cubic(x: Weights) -> Weights:
    inner = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


@lru_cache(maxsize=64)
def nearest_pixels(size: int, target: int) -> Indices:
    """Return the source pixel of each target pixel: Pillow's ``Geometry.c`` accumulates the step, with its rounding errors."""
    step = size / target
    positions = np.add.accumulate(np.concatenate([[step * 0.5], np.full(target - 1, step)]))
    found: Indices = np.minimum(positions.astype(np.intp), size - 1)
    found.flags.writeable = False
    return found
