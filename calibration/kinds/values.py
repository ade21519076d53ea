"""What kinds share whose answers are numbers: the mean absolute error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError

from .base import CalibrationKind, Floats, Labels, Metric, Outputs, Usual
from .cells import known, number_array, numbers, one_per_image, require_numbers, texts

MAE = Metric("mean absolute error", share=False, lower_is_better=True)


class ValueKind(CalibrationKind):
    """Values in the task's unit."""

    metrics = {"mae": MAE}

    def width(self, task: Task) -> int:
        """Return how many numbers a label has."""
        return max(task.size, 1)

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        width = self.width(task)
        found, problems = numbers(task, cells, width, comma=comma)
        return (found[:, 0] if width == 1 else found), problems

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        width = self.width(task)
        array = one_per_image(array, width if width > 1 else None, where)
        if array.dtype.kind == "U":
            values, problems = self.parse(task, texts(array))
            if problems:
                raise ImageError(f"{where}: {next(iter(problems.values()))}")
            return values
        require_numbers(array, where, or_text=False)
        return number_array(array, where)

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        found = outputs.astype(np.float64)
        return found if decoded else found * task.scale + task.offset

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        with np.errstate(invalid="ignore"):
            errors = np.abs(self.values(task, outputs, decoded) - labels.reshape(len(labels), -1)).mean(axis=1)
        return np.where(known(labels), np.where(np.isnan(errors), np.inf, errors), np.nan)

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        truth = labels.reshape(len(labels), -1)
        middle = np.median(truth, axis=0)
        losses = np.abs(truth - middle).mean(axis=1)
        if not losses.any():
            return None
        unit = self.unit(task)
        unit = f" {unit}" if unit else ""
        shown = ", ".join(f"{value:.4g}" for value in middle)
        return Usual(f"always answering {shown}{unit}, the median", losses, losses.mean(), MAE.name, unit)
