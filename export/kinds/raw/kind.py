"""The tensor as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_deploy.export.kinds.base import ExportKind, Outputs
from mtl_deploy.export.kinds.columns import by_columns
from mtl_deploy.runtime.bundle.tasks import Task

if TYPE_CHECKING:
    import torch


class Raw(ExportKind):
    """No decoding; errors are judged by column."""

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        return value

    def view(self, task: Task, array: Outputs) -> Outputs:
        return by_columns(array)


KIND = Raw()
