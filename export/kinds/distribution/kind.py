"""An expectation over bins: a softmax, times the bins' values, summed.

The product is ``Mul`` and ``ReduceSum``, so that no node of it looks like a layer with weights: the layer that gives the logits is
the head's last one, whatever the values are. All of it stays in FP32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.base import ExportKind, Outputs, Scales, text
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.distribution.values import parts, values_of
from mtl_deploy.runtime.kinds.spaced import listed

if TYPE_CHECKING:
    import torch


class Distribution(ExportKind):
    """The number (on a circle the mean cosine and sine), then the probabilities."""

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        found = super().as_task(task, value, given)
        if value.ndim > 2 and max(value.shape[1:]) != value[0].numel():
            raise TaskError(
                f"task {task.name!r} is a distribution, one row of bins per image, but its output is {text(given)}; declare it "
                "raw, or return one output for each row"
            )
        return found

    def changes(self, task: Task) -> bool:
        return True

    def decode(self, task: Task, chain: Chain) -> None:
        if task.applied == "log_softmax":
            chain.add("Exp", "exp", chain.last)
        elif not task.gives_probabilities:
            chain.add("Softmax", "softmax", chain.last, axis=-1)
        shares = chain.last
        axis = chain.constant("bins", np.array([1], np.int64))
        means = []
        for word, table in zip(("cosine", "sine") if task.options.circular else ("mean",), tables(task), strict=True):
            chain.add("Mul", f"{word}_weighted", shares, chain.constant(word, table[None]))
            means.append(chain.add("ReduceSum", word, chain.last, axis, keepdims=1))
        chain.add("Concat", "number_and_bins", *means, shares, axis=1)

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch

        shares = self._shares(task, raw)
        return torch.cat([self._means(task, shares), shares], dim=1)

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        if decoded:
            return Scales(apart=True, behind_centred=task.applied == "none")  # adding one number changes nothing
        return Scales(absolute=task.gives_probabilities)

    def view(self, task: Task, array: Outputs) -> Outputs:
        """Return a decoded output as columns ``(N, parts + 1, k, 1)``: each number k times, and all bins' probabilities as one."""
        if array.shape[1] == task.size:
            return array
        first = parts(task)
        numbers = [np.repeat(array[:, at : at + 1], task.size, axis=1) for at in range(first)]
        return np.stack([*numbers, array[:, first:]], axis=1)[..., None]

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        return self._means(task, self._shares(task, raw)) if decoded else raw

    def _shares(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        if task.gives_probabilities:
            return raw
        return raw.exp() if task.applied == "log_softmax" else raw.softmax(-1)

    def _means(self, task: Task, shares: torch.Tensor) -> torch.Tensor:
        import torch

        values = shares.new_tensor(listed(task.options.values))
        if not task.options.circular:
            return (shares * values).sum(dim=1, keepdim=True)
        vectors = torch.polar(torch.ones_like(values), values * (2 * torch.pi / task.options.period))
        return shares @ torch.view_as_real(vectors)


def tables(task: Task) -> Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Return what the probabilities are multiplied by, ``(k,)`` for each number."""
    values = values_of(task)
    if not task.options.circular:
        return [values]
    angles = values / task.options.period * 2 * np.pi
    return [np.cos(angles), np.sin(angles)]


KIND = Distribution()
