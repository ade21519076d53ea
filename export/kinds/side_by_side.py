"""What kinds share that put several of the network's outputs side by side, as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.bundle.tasks import Task

from .base import ExportKind
from .chain import Chain

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


class SideBySide(ExportKind):
    """One output, or several whose values follow one another."""

    def merged(self, task: Task, values: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        return torch.cat([self.as_task(task, value, tuple(value.shape)) for value in values], dim=1)

    def merge(self, task: Task, parts: Sequence[ir.Value], chain: Chain) -> None:
        rows = [_flat(part, chain) for part in parts]
        chain.add("Concat", "side_by_side", *rows, axis=1)


def _flat(part: ir.Value, chain: Chain) -> ir.Value:
    import onnx_ir as ir

    sizes = None if part.shape is None else list(part.shape)
    if sizes is not None and len(sizes) == 2:
        return part
    word = f"flat{len(chain.nodes)}"
    found = chain.add("Reshape", word, part, chain.constant(word, np.array([0, -1], np.int64)))
    if sizes is not None and all(isinstance(size, int) for size in sizes[1:]):  # the search for activations reads it
        found.shape = ir.Shape([sizes[0], prod(int(str(size)) for size in sizes[1:])])
    return found
