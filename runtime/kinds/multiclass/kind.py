"""One of several classes for each image: the one with the largest value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.classes import ClassKind
from mtl_deploy.runtime.predictions.decoding import FloatArray


class Multiclass(ClassKind):
    """The class with the largest probability."""

    name = "multiclass"
    called = "a multiclass task"
    takes = frozenset(("labels",))
    example = "multiclass:cat,dog,bird"

    def choose(self, task: Task, rows: FloatArray) -> npt.NDArray[np.intp]:
        return np.asarray(rows.argmax(axis=1))

    def check_size(self, task: Task, size: int) -> None:
        if size < 2:
            raise TaskError(
                f"task {task.name!r} is multiclass but the network returns {size} value per sample; "
                "declare it binary or regression"
            )
        if task.labels and len(task.labels) != size:
            raise TaskError(
                f"task {task.name!r} has {len(task.labels)} labels but the network returns {size} values per sample"
            )


KIND = Multiclass()
