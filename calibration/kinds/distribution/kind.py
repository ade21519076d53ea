"""Numbers that are expectations over bins, judged by the mean absolute error, of angles on the circle."""

from __future__ import annotations

import numpy as np

from mtl_deploy.calibration.kinds.base import Array, Floats, Labels, Outputs, Usual
from mtl_deploy.calibration.kinds.cells import known
from mtl_deploy.calibration.kinds.values import MAE, ValueKind
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.distribution.kind import split
from mtl_deploy.runtime.kinds.distribution.values import apart, value_of

_CANDIDATES = 512  # labels that are tried as the best constant answer on a circle


class Distribution(ValueKind):
    """One number for each image; the probabilities of the bins are not judged."""

    one_number = True

    def width(self, task: Task) -> int:
        return 1

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        """Return ``(N, 1)`` numbers in the task's unit."""
        means, _ = split(task, outputs, "decoded" if decoded else "logits")
        return value_of(task, means)[:, None]

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        with np.errstate(invalid="ignore"):
            errors = apart(task, self.values(task, outputs, decoded)[:, 0], labels.reshape(len(labels)))
        return np.where(known(labels), np.where(np.isnan(errors), np.inf, errors), np.nan)

    def differences(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        with np.errstate(invalid="ignore"):
            return apart(task, self.values(task, found, decoded), self.values(task, expected, decoded))

    def bounded(self, task: Task, *, decoded: bool) -> bool:
        return False

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        if task.options.period is None:
            return super().usual(task, outputs, labels, decoded)
        truth = labels.reshape(-1)
        tried = np.unique(truth)
        tried = tried[:: -(-len(tried) // _CANDIDATES)]
        best = min(tried, key=lambda one: float(apart(task, truth, np.full_like(truth, one)).mean()))
        losses = apart(task, truth, np.full_like(truth, best))
        if not losses.any():
            return None
        unit = f" {task.unit}" if task.unit else ""
        return Usual(f"always answering {best:.4g}{unit}, the median", losses, float(losses.mean()), MAE.name, unit)

    def spread_rows(self, task: Task, expected: Array, found: Array) -> Floats:
        """Return one row per image: the error, and the number."""
        decoded = expected.shape[1] != task.size
        one, other = (self.values(task, each, decoded)[:, 0] for each in (expected, found))
        return np.column_stack([apart(task, one, other), one])

    def relative(self, task: Task, rows: Floats) -> float:
        numbers = rows[:, 1]
        if task.options.period is None:
            return super().relative(task, rows)
        turns = 2 * np.pi * numbers / task.options.period
        middle = np.arctan2(np.sin(turns).mean(), np.cos(turns).mean()) * task.options.period / (2 * np.pi)
        spread = float(apart(task, numbers, np.full_like(numbers, middle)).mean())
        return float(rows[:, 0].mean()) / (spread or 1.0)


KIND = Distribution()
