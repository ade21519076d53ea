"""Antialiased bilinear resizing with numpy alone, equal to Pillow's within one level of 255.

Networks are trained on images that Pillow has resized (torchvision's ``Resize``); shrinking without antialiasing, as
``cv2.INTER_LINEAR`` does, shifts their predictions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]

_UNIT = 2.0**22  # Pillow's weights are integers over this
_ROWS = 256  # taken at a time, so that a large photograph does not become a large float array


def resize(image: Image, height: int, width: int) -> Image:
    """Resize ``(H, W, 3) uint8`` to ``(height, width, 3) uint8``, C-contiguous.

    Method: Pillow's ``src/libImaging/Resample.c`` with its bilinear (triangle) filter: columns first, then rows, each with a
    support that grows with the reduction, weights rounded to 22 bits, and 8 bits in between. The sums are exact: they
    are integers over 2**22 that fit a double. Along one axis the result is Pillow's to the bit; along both, recent releases take
    rows first for some shapes, and a level may round the other way.
    """
    if image.shape[1] != width:
        weights = _weights(image.shape[1], width)
        parts = [_along_columns(image[top : top + _ROWS], weights) for top in range(0, len(image), _ROWS)]
        image = np.concatenate(parts)
    if image.shape[0] != height:
        flat = image.reshape(len(image), -1).astype(np.float64)
        image = _rounded(_weights(image.shape[0], height) @ flat).reshape(height, width, 3)
    return np.ascontiguousarray(image)


def _along_columns(rows: Image, weights: Weights) -> Image:
    columns = rows.transpose(1, 0, 2).reshape(rows.shape[1], -1).astype(np.float64)
    return _rounded(weights @ columns).reshape(len(weights), len(rows), 3).transpose(1, 0, 2)


def _rounded(values: Weights) -> Image:
    rounded: Image = np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
    return rounded


@lru_cache(maxsize=32)
def _weights(size: int, target: int) -> Weights:
    """Return the ``(target, size)`` matrix whose rows hold the share of each source pixel."""
    scale = size / target
    support = max(scale, 1.0)
    centre = (np.arange(target)[:, None] + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(int), 0)
    last = np.minimum((centre + support + 0.5).astype(int), size)
    pixel = np.arange(size)
    weights: Weights = np.maximum(1 - np.abs((pixel - centre + 0.5) * (1 / support)), 0)
    weights[(pixel < first) | (pixel >= last)] = 0
    weights = np.floor(weights / weights.sum(axis=1, keepdims=True) * _UNIT + 0.5) / _UNIT
    weights.flags.writeable = False
    return weights
