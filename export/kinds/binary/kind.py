"""Yes or no: a sigmoid behind one logit, a softmax behind two."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs
from mtl_deploy.export.kinds.classes import ClassKind
from mtl_deploy.runtime.bundle.tasks import Task


class Binary(ClassKind):
    """The positive class from the task's threshold on."""

    def alone(self, task: Task) -> bool:
        return task.size == 1

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        if decoded or task.gives_probabilities:
            return np.asarray(values[:, -1] >= task.threshold)
        threshold = np.log(task.threshold / (1 - task.threshold))
        return np.asarray((values[:, -1] - values[:, 0] if values.shape[1] > 1 else values[:, 0]) >= threshold)


KIND = Binary()
