"""Ranks, judged by the mean absolute error: in the unit of their values, or in ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats, Labels, Outputs
from mtl_deploy.calibration.kinds.cells import class_labels
from mtl_deploy.calibration.kinds.values import ValueKind
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.ordinal.kind import above, numbers_of, ranks_of


class Ordinal(ValueKind):
    """A label is a number in the unit of the ranks' values; of ranks without values one of their names, or the rank."""

    one_number = True
    least = 0.1

    def takes_number(self, task: Task) -> bool:
        return bool(task.options.values)

    def width(self, task: Task) -> int:
        return 1

    def unit(self, task: Task) -> str | None:
        return task.unit if task.options.values else "ranks"

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        """Read names of ranks wherever the task has labels; other cells are values, or ranks where there are no values."""
        if not task.options.values:
            ranks, problems = class_labels(task, cells, task.size + 1 if task.size else None, comma=comma)
            return np.where(ranks < 0, np.nan, ranks.astype(np.float64)), problems
        names = {label.lower(): rank for rank, label in enumerate(task.labels)}
        named = {place: names[cell.lower()] for place, cell in enumerate(cells) if cell.lower() in names}
        found, problems = super().parse(
            task, ["" if place in named else cell for place, cell in enumerate(cells)], comma=comma
        )
        for place, rank in named.items():
            found[place] = numbers_of(task, np.array([rank]))[0]
        return found, problems

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        """Return ``(N, 1)`` numbers."""
        shares = above(task, outputs.astype(np.float32), "decoded" if decoded else "logits")
        return numbers_of(task, ranks_of(task, shares))[:, None]


KIND = Ordinal()
