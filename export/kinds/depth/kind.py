"""Depth: scale and offset, interpolate, clip, drop the channel axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.dense import DenseKind, at_size, resize
from mtl_deploy.runtime.bundle.tasks import Task

if TYPE_CHECKING:
    import torch


class Depth(DenseKind):
    """One value per pixel, in the task's unit."""

    def decode(self, task: Task, chain: Chain) -> None:
        chain.scaled(task)
        resize(task, chain)
        if task.valid_range is not None:
            least, most = (chain.constant(word, float(end)) for word, end in zip(_ENDS, task.valid_range, strict=True))
            chain.add("Clip", "clip", chain.last, least, most)
        chain.add("Squeeze", "squeeze", chain.last, chain.constant("channel", np.array([1], np.int64)))

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        depth = at_size(task, raw * task.scale + task.offset)[:, 0]
        return depth if task.valid_range is None else depth.clamp(*task.valid_range)

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return raw * task.scale if decoded else raw


_ENDS = ("least", "most")
KIND = Depth()
