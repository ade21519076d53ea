"""The same kind in the export room: two outputs merged, sigmoids and a grid in the graph, verified behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_deploy.export.kinds.base import ExportKind
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task


class SpotKind(ExportKind):
    def merged(self, task: Task, values: Sequence[Any]) -> Any:
        import torch

        return torch.cat([value.flatten(1) for value in values], dim=1)

    def merge(self, task: Task, parts: Sequence[Any], chain: Chain) -> None:
        chain.add("Concat", "concat", *parts, axis=1)

    def changes(self, task: Task) -> bool:
        return True

    def decode(self, task: Task, chain: Chain) -> None:
        chain.add("Sigmoid", "sigmoid", chain.last)
        chain.add("Mul", "grid", chain.last, chain.constant("grid", np.array([*task.options.grid, 1.0])))

    def decoded(self, task: Task, raw: Any) -> Any:
        return raw.sigmoid() * raw.new_tensor([*task.options.grid, 1.0])


KIND = SpotKind()
