"""Labels of coordinates, beside the way from the network's input to each image, so that errors are measured in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats, Labels
from mtl_deploy.calibration.kinds.cells import BETWEEN
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.vector.fields import options_of
from mtl_deploy.runtime.kinds.vector.frame import in_image, in_network, way_back

_BESIDE = 5
"""Columns behind the values: the way back, then the square root of the image's area in pixels."""


@dataclass(frozen=True)
class Truth:
    """Labels of some images.

    Attributes:
        values: ``(N, size)``; coordinates in the image's pixels.
        way: ``(N, 4)``: from the network's frame to the image's, see :func:`~mtl_deploy.runtime.kinds.vector.frame.way_back`; None:
            values are no coordinates, or the labels are in the network's frame.
        size: ``(N,)``: the square root of each image's area; None as for ``way``.
    """

    values: Floats
    way: Floats | None = None
    size: Floats | None = None

    def in_image(self, task: Task, answers: Floats) -> Floats:
        """Return answers ``(N, size)`` in the network's frame in that of the labels."""
        return answers if self.way is None else in_image(task, answers, self.way)

    def in_network(self, task: Task) -> Floats:
        """Return the labels in the network's frame."""
        return self.values if self.way is None else in_network(task, self.values, self.way)


def truth_of(task: Task, labels: Labels) -> Truth:
    """Return labels as :func:`placed` has made them."""
    rows = labels.reshape(len(labels), -1)
    size = rows.shape[1] - _BESIDE
    if options_of(task).frame is None or rows.shape[1] <= max(task.size, 1):
        return Truth(rows)
    return Truth(rows[:, :size], rows[:, size:-1], rows[:, -1])


def placed(task: Task, labels: Labels, placements: Sequence[ImagePlacement]) -> Labels:
    """Return labels ``(N, size)`` with what :class:`Truth` needs behind them, where the task has a frame."""
    frame = options_of(task).frame
    if frame is None:
        return labels
    ways = np.array([way_back(frame, placement) for placement in placements])
    sizes = np.sqrt([float(placement.original[0] * placement.original[1]) for placement in placements])
    return np.column_stack([labels.reshape(len(labels), -1), ways, sizes])


def in_cells(cell: str) -> str:
    """Return the cells of several columns as numbers with spaces between."""
    return " ".join(part for part in cell.split(BETWEEN) if part)
