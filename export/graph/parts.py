"""Tasks that several of the network's outputs make up: names for the parts, and the nodes that merge them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

from .constants import constant, free_name

if TYPE_CHECKING:
    import onnx_ir as ir


def part_names(task: Task) -> tuple[str, ...]:
    """Return a name for each of the network's outputs that make up a task: the task's own where nothing is merged.

    No task can have a name with ``#`` in it.
    """
    if not merges(task):
        return (task.name,)
    return tuple(f"{task.name}#{number}" for number in range(max(len(task.outputs), 1)))


def merges(task: Task) -> bool:
    """Return whether the kind makes the raw output of what the network returns, as of several outputs."""
    return len(task.outputs) > 1 or kind_of(task).merges_one


def merge_parts(model: ir.Model, signature: Signature) -> None:
    """Turn a graph's outputs, one for each part of each task, into one for each task, in place.

    Args:
        model: its outputs are those of :func:`part_names`, task by task.
        signature: of the tasks, with their sizes.
    """
    import onnx_ir as ir

    parts = iter(list(model.graph.outputs))
    merged: list[ir.Value] = []
    for task in signature.tasks:
        own = [next(parts) for _ in part_names(task)]
        if not merges(task):
            merged.append(own[0])
            continue
        chain = Chain(task, own[0], lambda name, content: as_constant(model, name, content))
        kind_of(task).merge(task, own, chain)
        name_outputs(model, chain.nodes)
        for number, value in enumerate(own):
            value.name = free_name(model, f"{task.name}_part{number}")
        chain.last.name = task.name
        size = signature.preprocessing.height, signature.preprocessing.width
        batch = None if own[0].shape is None else own[0].shape[0]
        chain.last.shape = ir.Shape([batch, *task.of.raw_shape(task, *size)])
        chain.last.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.extend(chain.nodes)
        merged.append(chain.last)
    model.graph.outputs[:] = merged


def as_constant(model: ir.Model, name: str, content: np.ndarray[Any, Any]) -> ir.Value:
    """Add a constant to a graph: int64 and booleans as they are, other numbers as float32."""
    return constant(model, name, content if content.dtype in (np.int64, np.bool_) else content.astype(np.float32))


def name_outputs(model: ir.Model, nodes: Sequence[ir.Node]) -> None:
    """Name what nodes that are to be added to a graph give, after the nodes."""
    for node in nodes:
        for number, output in enumerate(node.outputs):
            output.name = free_name(model, f"{node.name}_out" + (str(number) if number else ""))


def part_columns(tasks: Sequence[Task]) -> list[tuple[int, int] | None]:
    """Return the columns of each part of each task; None: all."""
    return [task.columns for task in tasks for _ in part_names(task)]
