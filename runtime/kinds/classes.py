"""What kinds share that choose one class for each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.activation import probabilities
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import FloatArray, Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.summary import class_name


class ClassKind(Kind):
    """One class for each image, with the probability of each."""

    of_classes = True
    one_class = True

    def choose(self, task: Task, rows: FloatArray) -> npt.NDArray[np.intp]:
        """Return the class ``(N,)`` that probabilities ``(N, classes)`` choose."""
        raise NotImplementedError

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        rows = class_probabilities(task, output.astype(np.float32, copy=False), form)
        return [_prediction(task, int(index), row) for index, row in zip(self.choose(task, rows), rows, strict=True)]

    def words(self, prediction: Prediction) -> str:
        if prediction.probability is None:
            return ""
        return f"{class_name(prediction.label or '')} ({100 * prediction.probability:.1f} %)"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        rows = () if prediction.probabilities is None else prediction.probabilities
        shares = [json_number(round(float(share), 6)) for share in rows]
        value = prediction.value if prediction.finite else None
        return {"value": value, "label": prediction.label, "probabilities": shares}


def class_probabilities(task: Task, output: FloatArray, form: Outputs) -> FloatArray:
    """Return ``(N, classes)``; a single value per sample is the positive class's."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and infinite logits become NaN
        found = output if form == "decoded" else probabilities(task.applied, output)
    return np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found


def _prediction(task: Task, index: int, row: FloatArray) -> Prediction:
    if not is_finite(row):
        return Prediction(task.name, task.kind, -1, None, row, finite=False)
    return Prediction(task.name, task.kind, index, task.labels[index] if task.labels else str(index), row)
