"""Embeddings: divided by their length, where the task says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.base import ExportKind, Scales
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.embedding.fields import SHORTEST

if TYPE_CHECKING:
    import torch


class Embedding(ExportKind):
    """Values of one vector have one unit, so they are judged together."""

    def changes(self, task: Task) -> bool:
        return bool(task.options.unit_length)

    def decode(self, task: Task, chain: Chain) -> None:
        if not task.options.unit_length:
            return
        vector = chain.last
        chain.add("Mul", "squares", vector, vector)
        chain.add("ReduceSum", "sum", chain.last, chain.constant("axis", np.array([1], np.int64)), keepdims=1)
        chain.add("Sqrt", "length", chain.last)
        chain.add("Max", "at_least", chain.last, chain.constant("shortest", SHORTEST))
        chain.add("Div", "unit", vector, chain.last)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import normalize

        return normalize(raw, dim=1, eps=SHORTEST) if task.options.unit_length else raw

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        return Scales()

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return self.decoded(task, raw) if decoded else raw


KIND = Embedding()
