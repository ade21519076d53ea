"""Maps resampled from a network's grid to an image's pixels, in numpy, one axis after the other.

The positions are PyTorch's ``interpolate(..., align_corners=False)`` and ONNX's ``half_pixel``: pixel ``i`` of ``n`` lies at
``(i + 0.5) / n`` of the side, and beyond the centres of the outermost pixels their value continues.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.images.fit import ImagePlacement

Map = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]
Indices = npt.NDArray[np.intp]


class _Axis(NamedTuple):
    """Between which two pixels of the grid each pixel of the image lies, and how far from the first, in 0..1."""

    first: Indices
    second: Indices
    share: Map


class Sampling:
    """The way back to an image from a grid that covers the network's input.

    Attributes:
        identity: whether the grid's pixels are the image's.
        unseen: ``(H, W) bool``, which pixels of the image have their centres outside the network's input; None where none do.
            What :meth:`nearest` and :meth:`bilinear` return for them is meaningless.
        partial: whether a map needs a value for pixels that the network has not seen, in the image or in the frame around it.
    """

    def __init__(self, grid: tuple[int, int], placement: ImagePlacement) -> None:
        """Take the grid's height and width, and where the image lies in the network's input."""
        self.identity = grid == placement.original and not placement.bordered
        sides = zip(grid, placement.original, placement.input, placement.box[:2], placement.box[2:], strict=True)
        self._sides = tuple(sides)
        self.shape = placement.original
        self.partial = placement.partial
        self.unseen: npt.NDArray[np.bool_] | None = None
        if placement.cropped:
            rows, columns = (_inside(*side[1:]) for side in self._sides)
            self.unseen = ~(rows[:, None] & columns)

    def nearest(self, labels: Labels) -> Labels:
        """Return each pixel's nearest value.

        Args:
            labels: ``(h, w)``, of any type; it is returned as it is where the grid's pixels are the image's.
        """
        if self.identity:
            return labels
        rows, columns = (_nearest(*side) for side in self._sides)
        return labels[rows[:, None], columns]

    def bilinear(self, values: Map) -> Map:
        """Return each pixel's value, interpolated between the four around it.

        Args:
            values: ``(..., h, w)``; it is returned as it is where the grid's pixels are the image's.
        """
        if self.identity:
            return values
        rows, columns = (_axis(*side) for side in self._sides)
        height, width = values.shape[-2:]
        if len(rows.first) * width <= len(columns.first) * height:  # the smaller of the two maps in between
            return _along_columns(_along_rows(values, rows), columns)
        return _along_rows(_along_columns(values, columns), rows)


def _along_rows(values: Map, axis: _Axis) -> Map:
    return _between(values[..., axis.first, :], values[..., axis.second, :], axis.share[:, None])


def _along_columns(values: Map, axis: _Axis) -> Map:
    return _between(values[..., axis.first], values[..., axis.second], axis.share)


def _between(first: Map, second: Map, share: Map) -> Map:
    """Return ``first * (1 - share) + second * share``; both are overwritten."""
    first *= 1 - share
    second *= share
    first += second
    return first


@lru_cache(maxsize=64)
def _axis(grid: int, original: int, side: int, start: int, length: int) -> _Axis:
    """Return where an image's pixels lie along one axis.

    Args:
        grid: pixels of the grid.
        original: pixels of the image.
        side: pixels of the network's input.
        start: where the image begins in the input, in the input's pixels.
        length: of the image in the input, likewise.
    """
    ratio = grid / side
    position = (start + (np.arange(original) + 0.5) * (length / original)) * ratio - 0.5
    least, greatest = (
        start * ratio,
        (start + length) * ratio - 1,
    )  # only those that the image covers: the border does not count
    if least > greatest:  # less than a pixel of the grid
        least = greatest = (least + greatest) / 2
    position = np.clip(np.clip(position, least, greatest), 0, grid - 1)
    first = np.minimum(position.astype(np.intp), grid - 1)
    second = np.minimum(first + 1, grid - 1)
    return _frozen(_Axis(first, second, (position - first).astype(np.float32)))


@lru_cache(maxsize=64)
def _nearest(grid: int, original: int, side: int, start: int, length: int) -> Indices:
    """Return the grid's pixel that each of an image's pixels lies in; arguments as :func:`_axis`'s."""
    position = (start + (np.arange(original) + 0.5) * (length / original)) * (grid / side)
    found: Indices = np.clip(position.astype(np.intp), 0, grid - 1)
    found.flags.writeable = False
    return found


def _inside(original: int, side: int, start: int, length: int) -> npt.NDArray[np.bool_]:
    """Return which pixels of an image lie inside the network's input; arguments as :func:`_axis`'s."""
    position = start + (np.arange(original) + 0.5) * (length / original)
    return (position >= 0) & (position < side)


def _frozen(axis: _Axis) -> _Axis:
    for array in axis:
        array.flags.writeable = False
    return axis
