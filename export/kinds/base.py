"""What a kind of task is in this room: its form, its nodes in the graph, and how its outputs are verified.

Decoding is written twice, as nodes and in torch, independently of each other, so that a mistake in either one shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

from .chain import Chain

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

Outputs = npt.NDArray[Any]


@dataclass(frozen=True)
class Scales:
    """What the errors of a task's tensors are relative to, see :mod:`mtl_deploy.export.verification.tensor_errors`.

    Attributes:
        apart: whether each value of the output is judged on its own spread; otherwise all are judged together.
        absolute: whether errors of the output are relative to 1, as those of probabilities.
        centred: whether the mean over the classes is subtracted from the output first.
        behind_apart: as ``apart``, of the logits (unscaled values, raw map) behind the output.
        behind_centred: as ``centred``, of these.
        of_sigmoid: whether these are log-odds of probabilities that the network gives itself.
    """

    apart: bool = False
    absolute: bool = False
    centred: bool = False
    behind_apart: bool = False
    behind_centred: bool = False
    of_sigmoid: bool = False


class ExportKind:
    """A kind whose raw output is a vector ``(N, size)``, decoded by nothing and judged value by value.

    Attributes:
        choosing: whether an output chooses classes, so that their agreement is reported.
        merges_one: whether :meth:`merged` and :meth:`merge` also make the raw output of a task with a single output.
    """

    choosing: ClassVar[bool] = False
    merges_one: ClassVar[bool] = False

    # ---- form

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        """Return a network's output in the form that the kind has.

        Args:
            task: without its size.
            value: ``(N, ...)`` of two dimensions or more; the task's columns.
            given: the shape that the network gave, for messages.

        Raises:
            TaskError: the shape does not fit the kind.
        """
        if value.ndim == 4 and value.shape[2] * value.shape[3] > 1:
            rows, columns = given[-2:]
            raise TaskError(
                f"task {task.name!r} is {task.kind}, but its output is {text(given)}, a map of {rows}x{columns}; declare it "
                "depth, normals, segmentation or raw, or flatten it to (N, k) in the network"
            )
        return value.reshape(value.shape[0], -1)

    def repeats(self, task: Task, place: int) -> bool:
        """Return whether one of a task's outputs may be the same for all images, ``(1, ...)`` whatever the batch, as anchors are.

        Args:
            task: as the user declared it.
            place: of the output among the task's.
        """
        return False

    def completed(self, task: Task, values: Sequence[torch.Tensor], image: tuple[int, int]) -> Task:
        """Return a task with the fields of its kind that only the network's outputs tell.

        Args:
            task: as the user declared it, with its outputs.
            values: what the network returned for them, ``(N, ...)`` each.
            image: height and width of its input.

        Raises:
            TaskError: the outputs do not fit the fields.
        """
        return task

    def merged(self, task: Task, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the one raw output that several of the network's outputs make, for a kind that takes several.

        Args:
            task: without its size.
            values: in the order of the task's ``output``, each ``(N, ...)``.

        Raises:
            TaskError: the shapes do not fit each other.
        """
        raise NotImplementedError

    def merge(self, task: Task, parts: Sequence[ir.Value], chain: Chain) -> None:
        """Add the nodes that do the same in the graph; the chain's last value is the raw output.

        Args:
            task: with its size and shape.
            parts: as ``values`` of :meth:`merged`.
            chain: its ``last`` is the first part.
        """
        raise NotImplementedError

    # ---- activation

    def activated(self, task: Task, output: ir.Value) -> Sequence[tuple[ir.Value, int | None]]:
        """Return what the network's own activation is looked for behind, with the axis of the classes; None: the usual one.

        Args:
            task: with its size.
            output: of the network's own graph.
        """
        return [(output, None)]

    def activation_rows(self, task: Task, values: Outputs) -> Outputs:
        """Return values of the raw output so that those which a softmax would be over lie along axis 1."""
        return values

    # ---- decoding

    def changes(self, task: Task) -> bool:
        """Return whether decoding changes the raw output, so that the graph keeps that too, and it is verified."""
        return False

    def decode(self, task: Task, chain: Chain) -> None:
        """Add the nodes that decode, as the kind's part in ``runtime/kinds`` reads their result.

        Args:
            task: with its size, and with stride or shape where the kind has one.
            chain: its ``last`` is the raw output.
        """

    def operators(self, task: Task) -> frozenset[str]:
        """Return those operators of decoding that not every engine library builds, as ``export/targets/operators.py`` has them."""
        return frozenset()

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        """Return what the decoded graph must give for raw output, float32 or float64."""
        return raw

    # ---- verification

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        """Return what errors are relative to."""
        return Scales(apart=True, behind_apart=True)

    def view(self, task: Task, array: Outputs) -> Outputs:
        """Return a tensor in the form in which errors are measured: ``(N, K)`` or ``(N, K, h, w)`` with K columns."""
        return array

    def fixed(self, task: Task) -> int:
        """Return how many of the last columns of a viewed raw output are the same for all images, whatever the network learned."""
        return 0

    def has_log_odds(self, task: Task) -> bool:
        """Return whether logits are recovered from probabilities that the network gives itself, to be judged as well."""
        return False

    def by_margin(self, task: Task) -> bool:
        """Return whether errors of a decoded output are judged by how sure the network is, see :meth:`lost`."""
        return False

    def margins(self, task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
        """Return how sure the network is of each value of a decoded output: how large an error in ``raw`` must be to change it."""
        raise NotImplementedError

    def lost(self, task: Task, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        """Return how wrong each value of a decoded output is, as an error in the raw output: 0 where it is right.

        Args:
            task: with its size.
            found: what the graph gave.
            wanted: what it must give.
            raw: the network's own output, from which that is decoded.
        """
        raise NotImplementedError

    def lost_margin(self, task: Task, found: Outputs, wanted: Outputs, margins: Outputs) -> Outputs:
        """Return the same of an engine, from :meth:`margins` alone."""
        raise NotImplementedError

    def chosen(self, task: Task, values: Outputs, *, decoded: bool) -> npt.NDArray[Any]:
        """Return the class that each row of values, or each pixel, chooses; of a kind that is :attr:`choosing`.

        Args:
            task: with its size.
            values: ``(N, size, ...)``, or what a decoded graph gives.
            decoded: which of them.
        """
        raise NotImplementedError

    def in_unit(self, task: Task, raw: torch.Tensor, *, decoded: bool) -> torch.Tensor:
        """Return raw output in the unit of the spread that its errors are relative to, differentiably."""
        return raw


def text(shape: tuple[int, ...]) -> str:
    """Return a shape for people, with N for the batch."""
    return f"({', '.join(['N', *map(str, shape[1:])])})"
