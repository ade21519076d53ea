"""A tensor of any rank as it is: boxes, landmarks, feature maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite
from mtl_deploy.runtime.predictions.summary import describe_raw, summarize_raw


class Raw(Kind):
    """No meaning, and so no unit, no labels and no decoding."""

    name = "raw"
    called = "a raw tensor"
    of_values = True
    keeps_shape = True
    example = "raw"

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        numbers = output.astype(np.float32, copy=False)
        return [Prediction(task.name, task.kind, value, finite=is_finite(value)) for value in numbers]

    def words(self, prediction: Prediction) -> str:
        return describe_raw(np.asarray(prediction.value))

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        return summarize_raw(np.asarray(prediction.value))


KIND = Raw()
