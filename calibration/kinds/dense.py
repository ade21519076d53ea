"""What kinds share that have one value per pixel: labels are maps, and metrics come from sums over pixels; no map is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.fit import ImagePlacement, place
from mtl_deploy.runtime.images.resize import nearest_pixels
from mtl_deploy.runtime.kinds.dense import DenseKind as DecodedKind

from .base import Array, Floats
from .rows import RowKind

Picture = npt.NDArray[Any]
"""Class indices ``(H, W)``, depth ``(H, W)`` in the task's unit, or unit normals ``(H, W, 3)``."""


class DenseKind(RowKind):
    """Maps. A row is sums over an image's pixels whose truth is known, and rows add up."""

    # ---- labels

    def from_pixels(self, task: Task, pixels: Picture, file: Path) -> Picture:
        """Return a label map from the pixels of a picture file, ``(H, W)`` or ``(H, W, C)``.

        Raises:
            ImageError: such a picture cannot hold them.
        """
        return pixels

    def from_numbers(self, task: Task, numbers: Array, file: Path) -> Array:
        """Return a label map from the array of an ``.npy`` file, or all of them, ``(N, H, W)``, from that of an ``.npz`` file."""
        return numbers

    def checked(self, task: Task, truth: Picture, where: str) -> tuple[Picture, Any]:
        """Check a label map; return it with one value for unknown pixels, and that value.

        Raises:
            ImageError: the map has the wrong shape or type.
        """
        raise NotImplementedError

    def at_size(self, task: Task, truth: Picture, preprocessing: Preprocessing, where: str) -> Picture:
        """Check a label map and bring it to the network's size as its image is, by nearest neighbours: no classes are mixed.

        A border around the image is unknown, and what a crop cuts off is left out.

        Raises:
            ImageError: see :meth:`checked`.
        """
        values, border = self.checked(task, truth, where)
        spot = place(values.shape[0], values.shape[1], replace(preprocessing, multiple=0))
        height, width = spot.box[2:]
        inner: Picture = values[nearest_pixels(values.shape[0], height)][:, nearest_pixels(values.shape[1], width)]
        if not spot.bordered:
            return inner
        framed = np.full((*spot.input, *values.shape[2:]), border, values.dtype)
        spot.paste(inner, framed)
        return framed

    # ---- answers

    def answers(self, task: Task, output: Array, signature: Signature) -> list[Picture]:
        size = (signature.preprocessing.height, signature.preprocessing.width)
        placements = [ImagePlacement(size, size, (0, 0, *size))] * len(output)
        return cast("DecodedKind", task.of).values(task, output, signature.outputs, placements)

    def total(self, task: Task, sums: Floats) -> dict[str, Floats]:
        """Return the metrics from totals of rows ``(..., K)``, the main one first; NaN where no pixel has a truth."""
        raise NotImplementedError

    def measured(self, task: Task, rows: Floats) -> dict[str, float]:
        return {key: float(value) for key, value in self.total(task, rows.sum(axis=0)).items()}

    def drawn(self, task: Task, rows: Floats, counts: Floats) -> Floats:
        return self.total(task, counts @ rows)[self.main]

    def distances(self, task: Task, answer: Picture, reference: Picture) -> Floats:
        """Return the difference between two maps at each pixel, ``(H, W)``; infinite where only one of them is NaN."""
        raise NotImplementedError

    def apart(self, task: Task, answer: Picture, reference: Picture) -> tuple[float, float]:
        found = self.distances(task, answer, reference)
        return float(found.mean()), float(found.max())

    def ends(self, task: Task, answer: Picture) -> tuple[Array, Array]:
        return answer.min(axis=(0, 1)), answer.max(axis=(0, 1))


class ValueMapKind(DenseKind):
    """Maps of one or several numbers per pixel."""

    channels = 1

    def spread_row(self, task: Task, expected: Picture, found: Picture) -> Floats:
        values = expected.reshape(-1, self.channels).astype(np.float64)
        error = np.mean(((values - found.reshape(values.shape)) ** 2).sum(axis=1))
        return np.array([error, np.mean((values**2).sum(axis=1)), *values.mean(axis=0)])

    def relative(self, task: Task, rows: Floats) -> float:
        error, means = float(rows[:, 0].mean()), rows[:, 1:].mean(axis=0)
        spread = float(np.sqrt(max(means[0] - (means[1:] ** 2).sum(), 0.0)))
        return float(np.sqrt(error)) / (spread or 1.0)


class VariedNumbers:
    """Sums of maps of ``channels`` numbers per pixel."""

    def __init__(self, channels: int) -> None:
        self.sums: Floats = np.zeros(channels)
        self.squares = 0.0
        self.count = 0

    def add(self, answer: Picture) -> None:
        """Add a decoded map; pixels that are not finite do not count."""
        values = answer.reshape(-1, len(self.sums)).astype(np.float64)
        values = values[np.isfinite(values).all(axis=1)]
        self.sums += values.sum(axis=0)
        self.squares += float((values**2).sum())
        self.count += len(values)

    @property
    def means(self) -> Floats:
        """Mean of each channel."""
        return self.sums / max(self.count, 1)


def require_form(task: Task, truth: Picture, last: tuple[int, ...], kinds: str, holds: str, where: str) -> None:
    """Refuse a label map of another shape or type.

    Args:
        task: whose it is.
        truth: the map.
        last: its shape behind ``(H, W)``.
        kinds: numpy's letters of the types that it may have.
        holds: what it holds, for people.
        where: name of the map in errors.

    Raises:
        ImageError: it has another shape or type.
    """
    if truth.ndim != 2 + len(last) or truth.shape[2:] != last or not truth.size:
        form = f"({', '.join(['H', 'W', *map(str, last)])})"
        raise ImageError(f"{where}: shape {truth.shape}; a label map for {task.kind} is {form}")
    if truth.dtype.kind not in kinds:
        raise ImageError(f"{where}: {truth.dtype}; a label map for {task.kind} holds {holds}")
