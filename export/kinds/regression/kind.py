"""Values in a unit: raw * scale + offset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_deploy.export.kinds.base import ExportKind
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task

if TYPE_CHECKING:
    import torch


class Regression(ExportKind):
    """Scale and offset, as far as they change anything."""

    def changes(self, task: Task) -> bool:
        return (task.scale, task.offset) != (1.0, 0.0)

    def decode(self, task: Task, chain: Chain) -> None:
        chain.scaled(task)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        return raw * task.scale + task.offset

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return raw * task.scale if decoded else raw


KIND = Regression()
