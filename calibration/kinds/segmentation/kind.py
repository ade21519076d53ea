"""Maps of classes, judged by mean intersection over union.

Source: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010; it is computed from one confusion matrix over all
images.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats, Metric, Usual
from mtl_deploy.calibration.kinds.classes import class_named
from mtl_deploy.calibration.kinds.dense import DenseKind, Picture, require_form
from mtl_deploy.runtime.bundle.tasks import Task

UNKNOWN_CLASS = 255


class Segmentation(DenseKind):
    """A row of C classes is ``(3 C,)``: by class, the pixels that have it in both maps, in the answer, and in the truth."""

    metrics = {"mean_iou": Metric("mean IoU"), "pixel_accuracy": Metric("pixel accuracy")}
    chooses = True
    least = 0.1

    def count(self, task: Task) -> int:
        """Return how many classes a pixel can have."""
        return task.size

    def unit(self, task: Task) -> str | None:
        return None

    def checked(self, task: Task, truth: Picture, where: str) -> tuple[Picture, Any]:
        require_form(task, truth, (), "iub", "class indices", where)
        values: Picture = truth.astype(np.int32)
        values[(values < 0) | (values >= (self.count(task) or UNKNOWN_CLASS))] = -1
        return values, np.int32(-1)

    def row(self, task: Task, answer: Picture, truth: Picture) -> Floats:
        present = (truth >= 0) & (truth < self.count(task))
        said, true = answer[present].astype(np.int64), truth[present].astype(np.int64)
        counts = [
            np.bincount(of, minlength=self.count(task))[: self.count(task)] for of in (true[said == true], said, true)
        ]
        return np.concatenate(counts).astype(np.float64)

    def total(self, task: Task, sums: Floats) -> dict[str, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):
            both, said, true = np.split(sums, 3, axis=-1)
            union = said + true - both
            occurs = union > 0
            overlap = np.where(occurs, both / np.where(occurs, union, 1), 0.0)
            return {
                "mean_iou": overlap.sum(axis=-1) / occurs.sum(axis=-1),
                "pixel_accuracy": both.sum(axis=-1) / true.sum(axis=-1),
            }

    def distances(self, task: Task, answer: Picture, reference: Picture) -> Floats:
        return np.asarray(answer != reference, np.float64)

    def apart(self, task: Task, answer: Picture, reference: Picture) -> tuple[float, float]:
        mean = float(self.distances(task, answer, reference).mean())
        return mean, mean

    def variation(self, task: Task) -> VariedClasses:
        return VariedClasses(self.count(task))

    def spread_row(self, task: Task, expected: Picture, found: Picture) -> Floats:
        counts = np.bincount(expected.ravel().astype(np.int64), minlength=self.count(task)) / expected.size
        return np.array([np.mean(expected != found), *counts])

    def relative(self, task: Task, rows: Floats) -> float:
        error, means = float(rows[:, 0].mean()), rows[:, 1:].mean(axis=0)
        return error / (float(1 - (means**2).sum()) or 1.0)

    def same_answer(self, task: Task, rows: Floats) -> str | None:
        said, true = (
            rows[:, self.count(task) : 2 * self.count(task)].sum(axis=0),
            rows[:, 2 * self.count(task) :].sum(axis=0),
        )
        if true[said.argmax()] == true.sum():
            return None
        return f" ({class_named(task, said.argmax())})"

    def usual_rows(self, task: Task, rows: Floats) -> Usual | None:
        true = rows[:, 2 * self.count(task) :]
        if (true.sum(axis=0) > 0).sum() < 2:
            return None
        most = int(true.sum(axis=0).argmax())
        found = np.zeros_like(rows)
        found[:, most] = true[:, most]
        found[:, self.count(task) + most] = true.sum(axis=1)
        found[:, 2 * self.count(task) :] = true
        room = 1 - self.measured(task, found)["mean_iou"]
        return Usual(f"calling every pixel {class_named(task, most)}", found, room, "mean IoU", " points")


class VariedClasses:
    """How often each class occurs in maps."""

    def __init__(self, classes: int) -> None:
        self._sums: Floats = np.zeros(classes)

    def add(self, answer: Picture) -> None:
        """Add a decoded map."""
        known = answer[(answer >= 0) & (answer < len(self._sums))].astype(np.int64)
        self._sums += np.bincount(known, minlength=len(self._sums))

    @property
    def ignoring(self) -> float:
        """The share of pixels that differ from classes drawn with the same frequencies."""
        return float(1 - ((self._sums / max(self._sums.sum(), 1)) ** 2).sum())


KIND = Segmentation()
