"""One task whose images are rows, at several precisions: the rows, and the cells of the matrix that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import Floats, ImageLabels
from mtl_deploy.runtime.bundle.tasks import Task

from .matrix import Cell
from .paired_losses import Losses
from .row_metrics import drop_interval, row_kind

BASE = "fp32"
CONSTANT = 1e-6
"""Relative to the value: an output that varies less from image to image does not depend on the image."""


class RowScore:
    """Rows of one task: a few numbers per image and variant.

    Args:
        task: the task.
        variants: their names; the first is the reference that the others are compared with.
        truth: labels of the images; None: there are none.

    Attributes:
        images: number of images so far.
    """

    def __init__(self, task: Task, variants: Sequence[str], truth: ImageLabels | None) -> None:
        self._task, self._variants, self._truth = task, tuple(variants), truth
        self._sums: dict[str, list[Floats]] = {name: [] for name in variants}
        self._against: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        self._apart: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        self._ends: dict[str, tuple[Floats, Floats]] = {
            name: (np.array(np.inf), np.array(-np.inf)) for name in variants
        }
        self.images = 0
        self._kind = row_kind(task)
        self._varied = self._kind.variation(task)

    def add(self, start: int, pictures: Mapping[str, Sequence[Any]]) -> None:
        """Add a batch.

        Args:
            start: position of its first image.
            pictures: by variant, one answer per image: a decoded map, or what the kind has.
        """
        first = pictures[self._variants[0]]
        base = pictures.get(BASE, first)
        for picture in base:
            self._varied.add(picture)
        for offset in range(len(first)):
            truth = None if self._truth is None else self._truth.read(start + offset)
            for name in self._variants:
                answer = pictures[name][offset]
                if (ends := self._kind.ends(self._task, answer)) is not None:
                    low, high = self._ends[name]
                    self._ends[name] = np.minimum(low, ends[0]), np.maximum(high, ends[1])
                self._against[name].append(self._spread(answer, first[offset]))
                self._apart[name].append(self._spread(answer, base[offset]))
                if truth is not None:
                    self._sums[name].append(self._kind.row(self._task, answer, truth))
        self.images += len(first)

    def _spread(self, answer: Any, reference: Any) -> tuple[float, float]:
        """Return the mean and the largest difference; for class maps, the share of pixels that differ for both."""
        return (0.0, 0.0) if answer is reference else self._kind.apart(self._task, answer, reference)

    def apart(self, variant: str) -> tuple[float, float]:
        """Return a variant's mean and largest difference from the FP32 graph."""
        return _summary(self._apart[variant])

    @property
    def ignoring(self) -> float:
        """Mean error of an answer that does not look at the image."""
        return self._varied.ignoring

    def cells(self, seed: int) -> list[Cell]:
        """Return one cell per variant."""
        return [self._cell(name, seed) for name in self._variants]

    def losses(self, name: str) -> Losses:
        """Return a variant's sums over images with labels; without labels, its distances from the first variant."""
        sums = np.array(self._sums[name])
        seen = self._seen(sums)
        if seen.any():
            return Losses(self._task, sums[seen], True, np.flatnonzero(seen))
        means = np.array([mean for mean, _ in self._against[name]])
        return Losses(self._task, means, False, np.arange(len(means)))

    def constant(self, name: str) -> bool:
        """Return whether a variant gave the same value for all pixels of all images."""
        low, high = self._ends[name]
        if not np.isfinite(low).all():
            return False  # nothing was added, or the kind does not judge it
        return bool((high - low <= CONSTANT * np.maximum(np.abs(low), np.abs(high))).all())

    def _seen(self, sums: Floats) -> npt.NDArray[np.bool_]:
        return self._kind.has_truth(self._task, sums) if len(sums) else np.zeros(0, np.bool_)

    def _cell(self, name: str, seed: int) -> Cell:
        measured: dict[str, float] = {}
        drop = low = high = None
        sums = np.array(self._sums[name])
        seen = self._seen(sums)
        if seen.any():
            measured = self._kind.measured(self._task, sums[seen])
            drop, low, high = 0.0, 0.0, 0.0
            if name != self._variants[0]:
                reference: npt.NDArray[np.float64] = np.array(self._sums[self._variants[0]])
                drop, low, high = drop_interval(self._task, sums[seen], reference[seen], seed)
        mean, largest = _summary(self._against[name])
        return Cell(
            task=self._task.name,
            variant=name,
            samples=int(seen.sum()) if len(sums) else self.images,
            metrics=measured,
            drop=drop,
            drop_low=low,
            drop_high=high,
            agreement=1 - mean if self._kind.chooses else None,
            mean_error=mean,
            max_error=largest,
            unit=self._kind.unit(self._task),
        )


def _summary(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    means, ends = np.array(pairs).T
    return float(means.mean()), float(ends.max())
