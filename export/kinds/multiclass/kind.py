"""One of several classes: a softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_deploy.export.kinds.base import text
from mtl_deploy.export.kinds.classes import ClassKind
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

if TYPE_CHECKING:
    import torch


class Multiclass(ClassKind):
    """One row of classes per image."""

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        found = super().as_task(task, value, given)
        if value.ndim > 2 and max(value.shape[1:]) != value[0].numel():
            raise TaskError(
                f"task {task.name!r} is multiclass, one row of classes per image, but its output is {text(given)}; "
                "declare it raw"
            )
        return found


KIND = Multiclass()
