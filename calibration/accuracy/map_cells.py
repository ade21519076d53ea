"""One dense task at several precisions: sums that grow with each batch of maps, and the matrix cells computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.dense_labels import DenseLabels
from mtl_deploy.runtime.bundle.tasks import Task

from .map_metrics import Floats, Picture, differences, drop_interval, figures, picture_sums
from .matrix import Cell
from .paired_losses import Losses

BASE = "fp32"
CONSTANT = 1e-6
"""Relative to the value: an output that varies less from image to image does not depend on the image."""


class DenseScore:
    """Sums of one dense task: a few numbers per image and variant.

    Args:
        task: the task.
        variants: their names; the first is the reference that the others are compared with.
        truth: labels of the images; None: there are none.

    Attributes:
        images: number of images so far.
    """

    def __init__(self, task: Task, variants: Sequence[str], truth: DenseLabels | None) -> None:
        self._task, self._variants, self._truth = task, tuple(variants), truth
        self._sums: dict[str, list[Floats]] = {name: [] for name in variants}
        self._against: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        self._apart: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        self._ends: dict[str, tuple[Floats, Floats]] = {
            name: (np.array(np.inf), np.array(-np.inf)) for name in variants
        }
        self.images = 0
        self._varied = Varied(task)

    def add(self, start: int, pictures: Mapping[str, Sequence[Picture]]) -> None:
        """Add a batch.

        Args:
            start: position of its first image.
            pictures: by variant, one decoded map per image.
        """
        first = pictures[self._variants[0]]
        base = pictures.get(BASE, first)
        for picture in base:
            self._varied.add(picture)
        for offset in range(len(first)):
            truth = None if self._truth is None else self._truth.read(start + offset)
            for name in self._variants:
                answer = pictures[name][offset]
                low, high = self._ends[name]
                self._ends[name] = np.minimum(low, answer.min(axis=(0, 1))), np.maximum(high, answer.max(axis=(0, 1)))
                self._against[name].append(self._spread(answer, first[offset]))
                self._apart[name].append(self._spread(answer, base[offset]))
                if truth is not None:
                    self._sums[name].append(picture_sums(self._task, answer, truth))
        self.images += len(first)

    def _spread(self, answer: Picture, reference: Picture) -> tuple[float, float]:
        """Return the mean and the largest difference; for class maps, the share of pixels that differ for both."""
        if answer is reference:
            return 0.0, 0.0
        found = differences(self._task, answer, reference)
        mean = float(found.mean())
        return (mean, mean) if self._task.kind == "segmentation" else (mean, float(found.max()))

    def apart(self, variant: str) -> tuple[float, float]:
        """Return a variant's mean and largest difference from the FP32 graph."""
        return _summary(self._apart[variant])

    @property
    def ignoring(self) -> float:
        """Mean error of an answer that does not look at the image, see :class:`Varied`."""
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
        return bool((high - low <= CONSTANT * np.maximum(np.abs(low), np.abs(high))).all())

    @staticmethod
    def _seen(sums: Floats) -> npt.NDArray[np.bool_]:
        return sums.sum(axis=1) > 0 if len(sums) else np.zeros(0, np.bool_)  # some images have no labelled pixel

    def _cell(self, name: str, seed: int) -> Cell:
        measured: dict[str, float] = {}
        drop = low = high = None
        sums = np.array(self._sums[name])
        seen = self._seen(sums)
        if seen.any():
            measured = {key: float(value) for key, value in figures(self._task, sums[seen].sum(axis=0)).items()}
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
            agreement=1 - mean if self._task.kind == "segmentation" else None,
            mean_error=mean,
            max_error=largest,
            unit="degrees" if self._task.kind == "normals" else self._task.unit,
        )


class Varied:
    """How much a dense task's maps vary: the mean error of an answer that is the same for every pixel of every image.

    For segmentation it is the share of pixels that differ from classes drawn with the same frequencies; for depth the mean
    deviation from the mean, computed as for a normal distribution; for normals the angle to the mean direction, in degrees.

    Args:
        task: a dense one.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._count = 0
        self._sums: Floats = np.zeros(task.size if task.kind == "segmentation" else 3)
        self._squares = 0.0

    def add(self, picture: Picture) -> None:
        """Add a decoded map."""
        if self._task.kind == "segmentation":
            known = picture[(picture >= 0) & (picture < self._task.size)].astype(np.int64)
            self._sums += np.bincount(known, minlength=self._task.size)
            self._count += known.size
            return
        values = picture.reshape(-1, 3 if self._task.kind == "normals" else 1).astype(np.float64)
        values = values[np.isfinite(values).all(axis=1)]
        self._sums[: values.shape[1]] += values.sum(axis=0)
        self._squares += float((values**2).sum())
        self._count += len(values)

    @property
    def ignoring(self) -> float:
        """The mean error of the constant answer; 0 if nothing varies."""
        means = self._sums / max(self._count, 1)
        if self._task.kind == "segmentation":
            return float(1 - (means**2).sum())
        if self._task.kind == "normals":
            return float(np.degrees(np.arccos(np.clip(np.linalg.norm(means), 0, 1))))
        variance = max(self._squares / max(self._count, 1) - float(means[0] ** 2), 0.0)
        return float(np.sqrt(2 / np.pi * variance))


def _summary(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    means, ends = np.array(pairs).T
    return float(means.mean()), float(ends.max())
