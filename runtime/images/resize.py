"""Antialiased resizing with numpy only, equal to Pillow's.

Networks are trained on images that Pillow has resized (torchvision's ``Resize``); shrinking without antialiasing, as
``cv2.INTER_LINEAR`` does, shifts their predictions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Interpolation

Image = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_UNIT = 2.0**22  # Pillow's weights are integers over this
_ROWS = 256  # at a time, so that a large photograph does not become a large float array
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # half the filter's width, in pixels of the larger image
_CUBIC = -0.5  # Keys' parameter, as Pillow has it


def resize(image: Image, height: int, width: int, interpolation: Interpolation = "bilinear") -> Image:
    """Resize ``(H, W, C) uint8`` to ``(height, width, C) uint8``, C-contiguous, each channel by itself.

    Method: Pillow's ``src/libImaging/Resample.c`` with its triangle or bicubic filter (R. Keys: Cubic Convolution Interpolation,
    1981): one axis, then the other, each with a support that grows with the reduction, weights rounded to 22 bits, and 8 bits
    in between. The sums are exact: they are integers over 2**22 that fit a double. Along one axis the result equals Pillow's to
    the bit. Along both it equals that of Pillow 13, which resizes rows first where that saves work; releases that always start
    with columns differ there, by at most one level of 255 with bilinear. ``nearest`` equals Pillow's to the bit.
    """
    if interpolation == "nearest":
        rows, columns = nearest_pixels(image.shape[0], height), nearest_pixels(image.shape[1], width)
        return np.ascontiguousarray(image[rows[:, None], columns])
    across = image.shape[1] != width
    rows_first = height < image.shape[0] and image.shape[0] - height > 2 * (image.shape[1] - width)
    if across and not rows_first:
        image = _across(image, width, interpolation)
    if image.shape[0] != height:
        flat = image.reshape(len(image), -1).astype(np.float64)
        image = _rounded(_weights(image.shape[0], height, interpolation) @ flat).reshape(height, *image.shape[1:])
    if across and rows_first:
        image = _across(image, width, interpolation)
    return np.ascontiguousarray(image)


def _across(image: Image, width: int, interpolation: Interpolation) -> Image:
    weights = _weights(image.shape[1], width, interpolation)
    return np.concatenate([_along_columns(image[top : top + _ROWS], weights) for top in range(0, len(image), _ROWS)])


def _along_columns(rows: Image, weights: Weights) -> Image:
    columns = rows.transpose(1, 0, 2).reshape(rows.shape[1], -1).astype(np.float64)
    return _rounded(weights @ columns).reshape(len(weights), len(rows), rows.shape[2]).transpose(1, 0, 2)


def _rounded(values: Weights) -> Image:
    rounded: Image = np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
    return rounded


@lru_cache(maxsize=32)
def _weights(size: int, target: int, interpolation: Interpolation) -> Weights:
    """Return the ``(target, size)`` matrix whose rows hold the share of each source pixel."""
    scale = size / target
    stretch = max(scale, 1.0)
    support = _SUPPORT[interpolation] * stretch
    centre = (np.arange(target)[:, None] + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), size)
    pixel = np.arange(size)
    distance = np.abs((pixel - centre + 0.5) * (1 / stretch))
    weights: Weights = np.maximum(1 - distance, 0) if interpolation == "bilinear" else _cubic(distance)
    weights[(pixel < first) | (pixel >= last)] = 0
    weights = weights / weights.sum(axis=1, keepdims=True) * _UNIT
    weights = np.trunc(weights + np.copysign(0.5, weights)) / _UNIT
    weights.flags.writeable = False
    return weights


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
