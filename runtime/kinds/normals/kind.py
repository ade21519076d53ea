"""A unit vector for each pixel: the network's three components, interpolated, then divided by their length."""

from __future__ import annotations

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.dense import DenseKind, floats
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.predictions.drawing import Panel, Pixels, Words
from mtl_deploy.runtime.predictions.sampling import Map, Sampling
from mtl_deploy.runtime.predictions.summary import mean_direction
from mtl_deploy.runtime.show.colours import of_normals

LEAST_LENGTH = 1e-6  # vectors shorter than this are not made unit length, as in the graphs


class Normals(DenseKind):
    """Unit normals ``(H, W, 3) float32``."""

    name = "normals"
    called = "normals"
    example = "normals"

    def check_size(self, task: Task, size: int) -> None:
        if size != 3:
            raise TaskError(
                f"task {task.name!r} is normals but the network returns {size} channel{'s' if size != 1 else ''}; "
                "normals are three values per pixel"
            )

    def plane(self, task: Task) -> bool:
        return False

    def value(self, task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
        values = floats(sample)
        if form == "decoded" and sampling.identity:
            return values.transpose(1, 2, 0)
        x, y, z = vectors = sampling.bilinear(values)
        lengths = np.sqrt(x * x + y * y + z * z)
        normals: Map = vectors / np.maximum(lengths, np.float32(LEAST_LENGTH))
        return normals.transpose(1, 2, 0)

    def unseen(self, task: Task, value: Array) -> float:
        return 0.0

    def words(self, prediction: Prediction) -> str:
        direction = mean_direction(np.asarray(prediction.value))
        return f"mean direction ({', '.join(f'{part:.2f}' for part in direction)})"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        value = np.asarray(prediction.value)
        return {"shape": list(value.shape), "mean_direction": [round(part, 6) for part in mean_direction(value)]}

    def panel(self, task: Task, prediction: Prediction, image: Pixels) -> Panel:
        value = np.asarray(prediction.value)
        return Panel(of_normals(value), Words(("red x, green y, blue z: -1 dark, 1 bright",)))


KIND = Normals()
