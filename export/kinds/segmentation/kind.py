"""Classes of pixels: interpolate the logits, take the best class.

A class index is right or wrong, so an error counts by its margin: by how much the network prefers its own class to the one that the
pixel got.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs, Scales
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.dense import DenseKind, at_size, in_half, resize, upsampled, upsamples
from mtl_deploy.runtime.bundle.tasks import MANY_CLASSES, Task

if TYPE_CHECKING:
    import torch


class Segmentation(DenseKind):
    """Class indices, or logits where the task says so."""

    choosing = True

    def changes(self, task: Task) -> bool:
        return task.argmax or upsamples(task)

    def decode(self, task: Task, chain: Chain) -> None:
        import onnx_ir as ir

        resize(task, chain)
        if not task.argmax:
            return
        chain.add("ArgMax", "argmax", chain.last, axis=1, keepdims=0)
        many = task.size > MANY_CLASSES
        for kind in (ir.DataType.INT32,) if many else (ir.DataType.FLOAT, ir.DataType.UINT8):
            chain.add("Cast", f"to_{kind.name.lower()}", chain.last, to=int(kind))

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch

        values = at_size(task, raw)
        if not task.argmax:
            return values
        return values.argmax(1).to(torch.int32 if task.size > MANY_CLASSES else torch.uint8)

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        shifts = (
            decoded and task.size > 1 and task.applied == "none"
        )  # adding one number to all classes changes nothing
        return Scales(centred=shifts and not task.argmax, behind_centred=shifts)

    def by_margin(self, task: Task) -> bool:
        return task.argmax

    def margins(self, task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
        parts = []
        for start in range(len(raw)):
            values = upsampled(task, raw[start : start + 1])
            second, first = np.moveaxis(np.partition(values, (-2, -1), axis=1)[:, -2:], 1, 0)
            parts.append(in_half(first - second))
        return np.concatenate(parts)

    def lost(self, task: Task, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        margin = np.zeros(wanted.shape)
        if found.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        for place in np.flatnonzero((found != wanted).reshape(len(wanted), -1).any(axis=1)):
            values = upsampled(task, raw[place : place + 1])[0]
            rows, columns = np.nonzero(found[place] != wanted[place])
            got, best = found[place, rows, columns].astype(int), wanted[place, rows, columns].astype(int)
            there = (got >= 0) & (got < len(values))
            lost = values[best, rows, columns] - values[np.where(there, got, 0), rows, columns]
            margin[place, rows, columns] = np.where(there, lost, np.inf)  # infinite for a class that does not exist
        return margin

    def lost_margin(self, task: Task, found: Outputs, wanted: Outputs, margins: Outputs) -> Outputs:
        return np.asarray((found != wanted).astype(np.float64) * margins.astype(np.float64))

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        return values if decoded and task.argmax else np.asarray(values.argmax(axis=1))


KIND = Segmentation()
