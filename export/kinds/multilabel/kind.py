"""Several labels: a sigmoid each. A network may give them as one output, or as several that are put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs, Scales
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.classes import ClassKind
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.multilabel.kind import thresholds

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


class Multilabel(ClassKind):
    """Each label on its own: an error in a label that hardly varies is not small beside one that varies much."""

    def alone(self, task: Task) -> bool:
        return True

    def merged(self, task: Task, values: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        return torch.cat([self.as_task(task, value, tuple(value.shape)) for value in values], dim=1)

    def merge(self, task: Task, parts: Sequence[ir.Value], chain: Chain) -> None:
        rows = [_flat(part, chain) for part in parts]
        chain.add("Concat", "side_by_side", *rows, axis=1)

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        return replace(super().scales(task, decoded=decoded), behind_apart=True)

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        least = thresholds(task, values.shape[1])
        return np.asarray(values >= (least if decoded or task.gives_probabilities else np.log(least / (1 - least))))


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


KIND = Multilabel()
