"""Several labels: a sigmoid each, or a softmax over the two values of each. Several outputs are put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import Outputs, Scales, text
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.classes import ClassKind
from mtl_deploy.export.kinds.side_by_side import SideBySide
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.multilabel.kind import label_probabilities, thresholds

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


class Multilabel(SideBySide, ClassKind):
    """Each label on its own: an error in a label that hardly varies is not small beside one that varies much."""

    def alone(self, task: Task) -> bool:
        return True

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        if task.options.pairs and value.ndim > 2 and value.shape[-1] != 2 and value.shape[1] != value[0].numel():
            raise TaskError(
                f"task {task.name!r} has pairs, but its output is {text(given)}; the two values of a label lie side by side: "
                "(N, 2) each, (N, labels, 2) or (N, 2 * labels)"
            )
        return super().as_task(task, value, given)

    def activated(self, task: Task, output: ir.Value) -> Sequence[tuple[ir.Value, int | None]]:
        if not task.options.pairs:
            return super().activated(task, output)
        joined = output.producer() if len(task.outputs) > 1 else None
        parts = [output] if joined is None else [part for part in joined.inputs if part is not None]
        return [(part, 2 if part.shape is not None and len(part.shape) == 3 else 1) for part in parts]

    def activation_rows(self, task: Task, values: Outputs) -> Outputs:
        return values.reshape(-1, 2) if task.options.pairs else values

    def changes(self, task: Task) -> bool:
        return task.options.pairs or super().changes(task)

    def decode(self, task: Task, chain: Chain) -> None:
        if not task.options.pairs:
            super().decode(task, chain)
            return
        chain.add("Reshape", "pairs", chain.last, chain.constant("pairs", np.array([0, -1, 2], np.int64)))
        if task.applied == "log_softmax":
            chain.add("Exp", "exp", chain.last)
        elif not task.gives_probabilities:
            chain.add("Softmax", "softmax", chain.last, axis=-1)
        chain.add("Gather", "holds", chain.last, chain.constant("second", np.array(1, np.int64)), axis=2)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        if not task.options.pairs:
            return super().decoded(task, raw)
        if task.gives_probabilities:
            return raw[:, 1::2]
        return raw[:, 1::2].exp() if task.applied == "log_softmax" else (raw[:, 1::2] - raw[:, 0::2]).sigmoid()

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        found = replace(super().scales(task, decoded=decoded), behind_apart=True)
        return replace(found, of_sigmoid=False) if task.options.pairs else found

    def view(self, task: Task, array: Outputs) -> Outputs:
        """Return one column per label: of pairs, what both do not share."""
        pairs = task.options.pairs and array.shape[1] == task.size
        return array[:, 1::2] - array[:, 0::2] if pairs else array

    def has_log_odds(self, task: Task) -> bool:
        return super().has_log_odds(task) and not task.options.pairs

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        shares = label_probabilities(task, values, "decoded" if decoded else "logits")
        return np.asarray(shares >= thresholds(task, shares.shape[1]))

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return raw[:, 1::2] - raw[:, 0::2] if task.options.pairs else super().in_unit(task, raw, decoded=decoded)


KIND = Multilabel()
