"""A rotation matrix for each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import FloatArray, Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.drawing import Colour, Line, Mark, Pixels

from .fields import RotationOptions, by_columns
from .matrices import angles, from_six, nearest

_AXES: tuple[Colour, ...] = ((230, 40, 40), (0, 158, 60), (40, 90, 230))  # x, y, z
_REACH = 0.35  # length of an axis, as a share of the image's shorter side


class Rotation(Kind):
    """``(3, 3) float32``: from six values by Gram and Schmidt, from nine the nearest rotation.

    A decoded graph gives ``(N, 9)``, the matrix row by row.
    """

    name = "rotation"
    called = "a rotation"
    options = RotationOptions
    of_values = True
    after_colon = "vectors"
    example = "rotation"

    def check_size(self, task: Task, size: int) -> None:
        if size not in (6, 9):
            raise TaskError(
                f"task {task.name!r} is a rotation but the network returns {size} values per sample; a rotation is a matrix of 9 "
                "values, or the two vectors of 6 that it is made from; declare angles or quaternions vector"
            )

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        return (9,)

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        found = nearest(matrices(task, output.astype(np.float32, copy=False), decoded=form == "decoded"))
        return [
            Prediction(task.name, task.kind, matrix, finite=is_finite(row))
            for matrix, row in zip(found.astype(np.float32), output, strict=True)
        ]

    def words(self, prediction: Prediction) -> str:
        if not prediction.finite:
            return ""
        yaw, pitch, roll = angles(np.asarray(prediction.value)[None])[0]
        return f"yaw {yaw:.1f}, pitch {pitch:.1f}, roll {roll:.1f} degrees"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        matrix = np.asarray(prediction.value)
        turned = zip(("yaw", "pitch", "roll"), angles(matrix[None])[0], strict=True)
        rows = [[json_number(float(number)) for number in row] for row in matrix]
        return {"matrix": rows, **{name: json_number(float(angle)) for name, angle in turned}, "unit": "degrees"}

    def marks_on(self, task: Task, prediction: Prediction, image: Pixels) -> Sequence[Mark]:
        height, width = image.shape[:2]
        middle, reach = (width / 2, height / 2), _REACH * min(height, width)
        matrix = np.asarray(prediction.value)
        return [
            Line(
                middle,
                (middle[0] + reach * float(matrix[0, axis]), middle[1] + reach * float(matrix[1, axis])),
                _AXES[axis],
            )
            for axis in range(3)
        ]


def matrices(task: Task, values: FloatArray, *, decoded: bool) -> FloatArray:
    """Return the matrices ``(N, 3, 3)`` that a graph's output stands for, not yet the nearest rotations."""
    if decoded:
        return values.reshape(-1, 3, 3)
    if task.size == 6:
        return from_six(values, columns=by_columns(task))
    found = values.reshape(-1, 3, 3)
    return found.transpose(0, 2, 1) if by_columns(task) else found


KIND = Rotation()
