"""Normals: interpolate, divide by the length.

A unit vector points the less clearly the shorter the network's vector was before it was normalised, so its error is multiplied by
that length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.dense import DenseKind, at_size, in_half, resize, upsampled
from mtl_deploy.runtime.bundle.tasks import Task

if TYPE_CHECKING:
    import torch

SHORTEST = 1e-6  # normals are divided by no less than this, so that a vector of zeros stays a vector of zeros


class Normals(DenseKind):
    """Unit vectors."""

    def decode(self, task: Task, chain: Chain) -> None:
        resize(task, chain)
        vectors = chain.last
        chain.add("Mul", "squares", vectors, vectors)
        chain.add("ReduceSum", "sum", chain.last, chain.constant("channel", np.array([1], np.int64)), keepdims=1)
        chain.add("Sqrt", "length", chain.last)
        chain.add("Max", "at_least", chain.last, chain.constant("shortest", SHORTEST))
        chain.add("Div", "unit", vectors, chain.last)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch

        values = at_size(task, raw)
        lengths: torch.Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        return values / lengths.clamp(min=SHORTEST)

    def by_margin(self, task: Task) -> bool:
        return True

    def margins(self, task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
        parts = [in_half(np.linalg.norm(upsampled(task, raw[i : i + 1]), axis=1)) for i in range(len(raw))]
        return np.concatenate(parts)

    def lost(self, task: Task, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        difference = np.abs(found.astype(np.float64) - wanted)
        lengths: Outputs = np.linalg.norm(upsampled(task, raw), axis=1, keepdims=True)
        return difference * lengths

    def lost_margin(self, task: Task, found: Outputs, wanted: Outputs, margins: Outputs) -> Outputs:
        difference: Outputs = np.abs(found.astype(np.float64) - wanted) * margins.astype(np.float64)[:, None]
        return difference


KIND = Normals()
