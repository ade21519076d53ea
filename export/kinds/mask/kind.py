"""Masks: one map of two, interpolate, compare with the threshold.

A pixel is right or wrong, so an error counts by its margin: how far the network's value is from the threshold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs, Scales
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.dense import DenseKind, at_size, in_half, resize, upsampled
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.mask.kind import level

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


class Mask(DenseKind):
    """0 or 1 for each pixel. What is compared stays FP32, as all that follows a head's last layer, so the threshold is exact."""

    choosing = True

    def decode(self, task: Task, chain: Chain) -> None:
        import onnx_ir as ir

        if task.size == 2:
            raw = chain.last
            positive = _channel(chain, raw, 1, "positive")
            if task.applied != "softmax":
                chain.add("Sub", "difference", positive, _channel(chain, raw, 0, "negative"))
        resize(task, chain)
        chain.add("Squeeze", "squeeze", chain.last, chain.constant("channel", np.array([1], np.int64)))
        chain.add("GreaterOrEqual", "compare", chain.last, chain.constant("level", level(task)))
        # TensorRT makes uint8 of float32 alone, and only as an output
        for kind in (ir.DataType.FLOAT, ir.DataType.UINT8):
            chain.add("Cast", f"to_{kind.name.lower()}", chain.last, to=int(kind))

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch

        values = at_size(task, raw)
        if task.size == 2 and task.applied != "softmax":
            chosen = values[:, 1] - values[:, 0] >= level(task)
        else:
            chosen = values[:, -1] >= level(task)
        return chosen.to(torch.uint8)

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        return Scales(behind_centred=decoded and task.size == 2 and task.applied == "none")

    def by_margin(self, task: Task) -> bool:
        return True

    def margins(self, task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
        return np.concatenate([in_half(_margin(task, raw[place : place + 1])) for place in range(len(raw))])

    def lost(self, task: Task, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        if found.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        margin = np.zeros(wanted.shape)
        wrong = found != wanted
        for place in np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1)):
            margin[place] = np.where(wrong[place], _margin(task, raw[place : place + 1])[0], 0)
        return np.where(np.isin(found, (0, 1)), margin, np.inf)

    def lost_margin(self, task: Task, found: Outputs, wanted: Outputs, margins: Outputs) -> Outputs:
        margin = (found != wanted).astype(np.float64) * margins.astype(np.float64)
        return np.where(np.isin(found, (0, 1)), margin, np.inf)

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        return values if decoded else np.asarray(_lead(task, values) >= level(task))


def _channel(chain: Chain, raw: ir.Value, place: int, word: str) -> ir.Value:
    parts = {"first": place, "stop": place + 1, "axis": 1}
    ends = [chain.constant(f"{word}.{name}", np.array([end], np.int64)) for name, end in parts.items()]
    return chain.add("Slice", word, raw, *ends)


def _lead(task: Task, values: Outputs) -> Outputs:
    """Return ``(N, h, w)``: what is compared with the level."""
    if task.size == 2 and task.applied != "softmax":
        return np.asarray(values[:, 1] - values[:, 0])
    return values[:, -1]


def _margin(task: Task, raw: Outputs) -> Outputs:
    return np.abs(_lead(task, upsampled(task, raw)) - level(task))


KIND = Mask()
