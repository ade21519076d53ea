"""A network that returns the tensors that tasks read, and nothing else; and the form that each task's tensor has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mtl_deploy.export.kinds.base import text
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

from .outputs import Key, pick


class Selected(nn.Module):
    """Calls a network and takes what is at each path, as a flat tuple, in the order of the paths.

    A tracer then sees no dict, dataclass, integer or None, and what nobody reads is dead code. A size of one that ``squeeze``
    took, of a batch of one above all, is put back.

    Args:
        network: takes a batch of images, and ``constants`` by name.
        paths: what to take.
        shapes: of each, without the batch, as several images gave it; empty until they are known, and where sizes are free.
        constants: other arguments of ``forward``.
        repeated: which of the paths hold one tensor for all images, ``(1, ...)``, which each image gets.
    """

    def __init__(
        self,
        network: nn.Module,
        paths: Sequence[Key],
        shapes: Sequence[tuple[int, ...]] = (),
        constants: Mapping[str, Any] | None = None,
        repeated: Collection[Key] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.paths, self.shapes, self.constants = tuple(paths), tuple(shapes), dict(constants or {})
        self.repeated = tuple(path in repeated for path in self.paths)
        self.training = False

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors for a batch of images ``(N, 3, H, W)``."""
        return self.taken(self.network(image, **self.constants), image)

    def taken(self, result: object, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the tensors, given what the network returned for a batch of images."""
        values = [
            pick(result, path).expand(image.shape[0], *[-1] * (pick(result, path).ndim - 1))
            if once
            else pick(result, path)
            for path, once in zip(self.paths, self.repeated, strict=True)
        ]
        if not self.shapes:
            return tuple(values)
        return tuple(_unsqueezed(value, shape, image) for value, shape in zip(values, self.shapes, strict=True))


def _unsqueezed(value: torch.Tensor, shape: tuple[int, ...], image: torch.Tensor) -> torch.Tensor:
    return value if value.ndim == len(shape) + 1 else value.reshape(image.shape[0], *shape)


def as_task(task: Task, value: torch.Tensor) -> torch.Tensor:
    """Return a network's output in the form that a task has it in: its columns, and by its kind.

    Args:
        task: its ``kind`` and ``columns`` are used.
        value: ``(N, ...)``.

    Returns:
        ``(N, C, h, w)`` for a dense task; for ``raw`` the tensor as it is, ``(N, 1)`` if it was ``(N,)``; else ``(N, size)``.

    Raises:
        TaskError: the shape does not fit the kind, or the columns do not fit the shape.
    """
    shape = tuple(value.shape)
    if task.columns is not None:
        first, stop = task.columns
        if task.of.of_maps and value.ndim == 3:
            raise TaskError(
                f"task {task.name!r}: columns [{first}, {stop}] of an output of shape {text(shape)}, which is one map per image "
                "and has none to choose from; leave columns out"
            )
        if value.ndim < 2 or stop > value.shape[1]:
            raise TaskError(f"task {task.name!r}: columns [{first}, {stop}] of an output of shape {text(shape)}")
        value = value[:, first:stop]
    if value.ndim == 1:
        value = value.unsqueeze(1)
    return kind_of(task).as_task(task, value, shape)


def as_tasks_output(task: Task, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what a task's outputs are together, in the form that the task has; several are merged as the kind says.

    Raises:
        TaskError: as :func:`as_task`; or the shapes of several do not fit each other.
    """
    if len(values) == 1 and not kind_of(task).merges_one:
        return as_task(task, values[0])
    return kind_of(task).merged(task, [value if value.ndim > 1 else value.unsqueeze(1) for value in values])
