"""Thresholds: a sigmoid each (CORAL), or the product of a sigmoid with all before it (CORN), as a sum of logarithms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs, Scales
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.classes import ClassKind
from mtl_deploy.export.kinds.side_by_side import SideBySide
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.ordinal.kind import above, ranks_of

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-30  # probabilities count as no less, so that none has an infinite logarithm


class Ordinal(SideBySide, ClassKind):
    """Probabilities of being above each threshold; how many are passed is counted by the runtime."""

    def alone(self, task: Task) -> bool:
        return True

    def changes(self, task: Task) -> bool:
        return _chained(task) or not task.gives_probabilities

    def decode(self, task: Task, chain: Chain) -> None:
        if not _chained(task):
            super().decode(task, chain)
            return
        if task.gives_probabilities:
            chain.add("Max", "at_least", chain.last, chain.constant("smallest", SMALLEST))
            chain.add("Log", "log", chain.last)
        else:  # log of a sigmoid, which never overflows
            chain.add("Neg", "negative", chain.last)
            chain.add("Softplus", "softplus", chain.last)
            chain.add("Neg", "log", chain.last)
        # a sum over all thresholds up to each one; a product with a matrix would look like a layer of the network
        chain.add("Unsqueeze", "rows", chain.last, chain.constant("rows", np.array([1], np.int64)))
        chain.add("Mul", "up_to", chain.last, chain.constant("up_to", np.tri(task.size)[None]))
        chain.add("ReduceSum", "sum", chain.last, chain.constant("columns", np.array([2], np.int64)), keepdims=0)
        chain.add("Exp", "product", chain.last)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        each = raw if task.gives_probabilities else raw.sigmoid()
        return each.cumprod(dim=1) if _chained(task) else each

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        found = replace(super().scales(task, decoded=decoded), behind_apart=True)
        return replace(found, of_sigmoid=False) if _chained(task) else found

    def has_log_odds(self, task: Task) -> bool:
        return task.gives_probabilities and not _chained(task)

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        return ranks_of(task, above(task, values, "decoded" if decoded else "logits"))

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return raw if _chained(task) else super().in_unit(task, raw, decoded=decoded)


def _chained(task: Task) -> bool:
    return bool(task.options.decoding == "corn")


KIND = Ordinal()
