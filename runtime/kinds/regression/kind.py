"""Values in a unit: raw * scale + offset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import FloatArray, Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.summary import describe_numbers


class Regression(Kind):
    """One or more values per image."""

    name = "regression"
    called = "a regression"
    takes = frozenset(("unit", "scale", "offset"))
    of_values = True
    averages = True
    example = "regression:years"

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        numbers = output.astype(np.float32, copy=False)
        values = numbers if form == "decoded" else numbers * np.float32(task.scale) + np.float32(task.offset)
        return [_prediction(task, row) for row in values]

    def words(self, prediction: Prediction) -> str:
        return describe_numbers(np.asarray(prediction.value), prediction.unit)

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        values = [json_number(float(value)) for value in np.ravel(prediction.value)]
        single = not isinstance(prediction.value, np.ndarray)
        return {"value": values[0] if single else values, "unit": prediction.unit}


def _prediction(task: Task, row: FloatArray) -> Prediction:
    value = float(row[0]) if len(row) == 1 else row
    return Prediction(task.name, task.kind, value, unit=task.unit, finite=is_finite(row))


KIND = Regression()
