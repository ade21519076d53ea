"""The same kind in the calibration room: two columns of labels, the mean distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.base import CalibrationKind, Floats, Labels, Metric, Outputs
from mtl_deploy.calibration.kinds.cells import BETWEEN, known, numbers
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from tests.export.kinds.spot_runtime import decoded as decoded_row


class SpotKind(CalibrationKind):
    metrics = {
        "distance": Metric("mean distance", share=False, lower_is_better=True),
        "hits": Metric("within 4 pixels"),
    }

    def columns(self, task: Task) -> tuple[str, ...]:
        return f"{task.name}.x", f"{task.name}.y"

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        return numbers(task, [" ".join(cell.split(BETWEEN)) for cell in cells], 2, comma=comma)

    def placed(self, task: Task, labels: Labels, placements: Sequence[ImagePlacement]) -> Labels:
        found = labels.copy()
        for row, spot in zip(found, placements, strict=True):
            row[:] = row[0] * spot.scale[1] + spot.box[1], row[1] * spot.scale[0] + spot.box[0]
        return found

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        rows = outputs.astype(np.float64) if decoded else np.array([decoded_row(task, row) for row in outputs])
        return rows[:, :2]

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        away = np.linalg.norm(self.values(task, outputs, decoded) - labels, axis=1)
        return np.where(known(labels), away, np.nan)

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        away = self.per_image(task, outputs, labels, decoded)
        return {"distance": float(away.mean()), "hits": float((away <= 4).mean())}

    def unit(self, task: Task) -> Any:
        return "pixels"


KIND = SpotKind()
