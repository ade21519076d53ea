"""What kinds share whose outputs are probabilities of classes, from logits or from the network itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task

from .base import ExportKind, Outputs, Scales
from .chain import Chain

if TYPE_CHECKING:
    import torch

LEAST = 1e-300  # of a probability, so that its logarithm stays finite in float64


class ClassKind(ExportKind):
    """Probabilities, judged absolutely, and the logits behind them, judged by their spread."""

    choosing = True

    def changes(self, task: Task) -> bool:
        return not task.gives_probabilities

    def alone(self, task: Task) -> bool:
        """Return whether each value is a probability by itself, as behind a sigmoid; otherwise they sum to 1."""
        return False

    def decode(self, task: Task, chain: Chain) -> None:
        if task.gives_probabilities:
            return
        if task.applied == "log_softmax":
            chain.add("Exp", "exp", chain.last)
        elif self.alone(task):
            chain.add("Sigmoid", "sigmoid", chain.last)
        else:
            chain.add("Softmax", "softmax", chain.last, axis=-1)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        if task.gives_probabilities:
            return raw
        if task.applied == "log_softmax":
            return raw.exp()
        return raw.sigmoid() if self.alone(task) else raw.softmax(-1)

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        absolute = decoded or task.gives_probabilities
        return Scales(
            apart=not absolute and self.alone(task),
            absolute=absolute,
            behind_centred=decoded
            and not self.alone(task)
            and task.applied == "none",  # adding one number changes nothing
            of_sigmoid=task.applied == "sigmoid",
        )

    def has_log_odds(self, task: Task) -> bool:
        return task.gives_probabilities

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        return np.asarray(values.argmax(axis=1))

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        if not task.gives_probabilities:
            return raw
        logits = raw.clamp_min(LEAST).log()
        return logits - (1 - raw).clamp_min(LEAST).log() if task.applied == "sigmoid" else logits
