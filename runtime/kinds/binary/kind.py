"""Yes or no for each image: one logit, or two for a softmax head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.activation import Activation
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.classes import ClassKind
from mtl_deploy.runtime.predictions.decoding import FloatArray


class Binary(ClassKind):
    """The positive class from ``threshold`` on."""

    name = "binary"
    called = "a binary task"
    takes = frozenset(("labels", "threshold"))
    example = "binary:male,female"

    def choose(self, task: Task, rows: FloatArray) -> npt.NDArray[np.intp]:
        return (rows[:, 1] >= task.threshold).astype(np.intp)

    def check(self, task: Task) -> None:
        if len(task.labels) not in (0, 2):
            raise TaskError(
                f"task {task.name!r}: a binary task has two labels (negative, positive), got {len(task.labels)}: "
                f"{', '.join(task.labels)}"
            )

    def check_size(self, task: Task, size: int) -> None:
        if size not in (1, 2):
            raise TaskError(
                f"task {task.name!r} is binary but the network returns {size} values per sample; a binary head gives 1 (a logit) "
                f"or 2; declare it multiclass if exactly one of {size} classes holds. If they are {size} yes-or-no answers, "
                "declare it multilabel"
            )

    def misfit(self, size: int, activation: Activation) -> str | None:
        if size == 1 and activation != "sigmoid":
            return f"{activation} of one value is always the same; one value has sigmoid or none"
        if size == 2 and activation == "sigmoid":
            return (
                "two sigmoids are two answers that need not sum to 1, so a threshold on one of them means nothing; declare it "
                "multiclass (the larger one counts) or multilabel (each is an answer), or return one of the two as the output"
            )
        return None


KIND = Binary()
