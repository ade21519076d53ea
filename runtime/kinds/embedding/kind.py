"""A vector for each image, to be compared with those of other images by the cosine of the angle between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import FloatArray, Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.summary import SHOWN

from .fields import SHORTEST, EmbeddingOptions


class Embedding(Kind):
    """``(k,) float32``; of unit length where the task says so, or the network makes it so."""

    name = "embedding"
    called = "an embedding"
    options = EmbeddingOptions
    of_values = True
    after_colon = "unit_length"
    example = "embedding;unit_length=true"

    def check_size(self, task: Task, size: int) -> None:
        if size < 2:
            raise TaskError(
                f"task {task.name!r} is an embedding but the network returns {size} value per sample; one value has no direction: "
                "declare it regression"
            )

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        vectors = output.astype(np.float32, copy=False)
        if form == "logits" and task.options.unit_length:
            vectors = of_unit_length(vectors)
        return [Prediction(task.name, task.kind, row, finite=is_finite(row)) for row in vectors]

    def words(self, prediction: Prediction) -> str:
        vector = np.asarray(prediction.value)
        head = ", ".join(f"{number:.4g}" for number in vector[:SHOWN])
        more = ", ..." if len(vector) > SHOWN else ""
        return f"{len(vector)} values of length {float(np.linalg.norm(vector)):.4g}: {head}{more}"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        vector = np.asarray(prediction.value)
        length = json_number(float(np.linalg.norm(vector.astype(np.float64))))
        return {"value": [json_number(float(number)) for number in vector], "length": length}


def of_unit_length(vectors: FloatArray) -> FloatArray:
    """Return vectors ``(N, k)`` divided by their lengths."""
    lengths = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    found: FloatArray = vectors / np.maximum(lengths, vectors.dtype.type(SHORTEST))
    return found


KIND = Embedding()
