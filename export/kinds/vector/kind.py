"""Named values: a factor and an offset for each, or for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.base import ExportKind
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.vector.fields import factors, options_of, shifts

if TYPE_CHECKING:
    import torch


class Vector(ExportKind):
    """Each value is judged on its own spread: units differ. What coordinates are in the image, the runtime computes."""

    def changes(self, task: Task) -> bool:
        return bool((factors(task) != 1).any() or (shifts(task) != 0).any())

    def decode(self, task: Task, chain: Chain) -> None:
        for op_type, word, numbers, neutral in (
            ("Mul", "scale", factors(task), 1),
            ("Add", "offset", shifts(task), 0),
        ):
            if (numbers != neutral).any():
                chain.add(op_type, word, chain.last, chain.constant(word, numbers))

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        options = options_of(task)
        factor = raw.new_tensor(options.scales) if options.scales else task.scale
        return raw * factor + (raw.new_tensor(options.offsets) if options.offsets else task.offset)

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return raw * raw.new_tensor(np.abs(factors(task)).tolist()) if decoded else raw


KIND = Vector()
