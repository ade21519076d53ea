"""The range of the values of a graph's tensors on real images.

ONNX Runtime runs the graph with reductions attached to every float tensor, so that three numbers per tensor and batch come back and
no activation is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import float_tensors, typed
from mtl_deploy.runtime.errors import ImageError, WorkError
from mtl_deploy.runtime.onnx_format.border import of_border

from .session import ObservingSession

_REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceSum")
"""The sum finds NaN: ONNX Runtime's minimum and maximum ignore a NaN that is not the first value."""


_KEEPING = frozenset(("Flatten", "Identity", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators whose result's range follows from their input's."""


@dataclass(frozen=True)
class TensorStatistics:
    """The values of one tensor over all batches.

    Attributes:
        minimum: the smallest value.
        maximum: the largest value.
        finite: whether no value was NaN or infinite; if it is False, the other two mean little.
    """

    minimum: float
    maximum: float
    finite: bool = True

    @property
    def absmax(self) -> float:
        """The largest magnitude; infinity if a value was not finite."""
        return max(abs(self.minimum), abs(self.maximum)) if self.finite else math.inf


def require_finite(name: str, observed: Mapping[str, TensorStatistics]) -> None:
    """Check that a tensor was observed and held no NaN or infinity.

    Raises:
        WorkError: it was not, or it did; the message names it.
    """
    if name not in observed:
        raise WorkError(f"tensor {name!r}: its values cannot be observed, as it is not a float tensor of the graph")
    if not observed[name].finite:
        raise WorkError(
            f"tensor {name!r} is NaN or infinite in FP32 on the calibration images, so it has no range; fix the network, "
            "or leave the nodes that read it out of INT8"
        )


def observe(
    model: onnx.ModelProto,
    batches: Iterable[npt.NDArray[np.generic]],
    *,
    threads: int | None = None,
    also: Sequence[str] = (),
    take: Callable[[dict[str, npt.NDArray[Any]]], None] = lambda _: None,
) -> dict[str, TensorStatistics]:
    """Run a graph on batches and find the range of each float tensor.

    Each tensor has a reduction as its consumer, so ONNX Runtime cannot fuse it away: what is observed is what the graph says.

    Args:
        model: a graph with one input, opset 13 or higher. It is not changed.
        batches: arrays for the graph's input, of its dtype and shape.
        threads: of ONNX Runtime; None: one per core.
        also: names of outputs and ``float32`` tensors that ``take`` is given, so that they need no pass of their own.
        take: is given these tensors' values by name, batch by batch.

    Returns:
        by name, in the graph's order: all ``float32`` tensors that depend on data (inputs and outputs of nodes, no weights),
        without those between nodes that resize a camera's frames.

    Raises:
        ImageError: there is no batch.
        RunError: ONNX Runtime failed.
    """
    names, derived, watched = _watch(model, also)
    wanted = [_reduced(name, reduction) for name in names for reduction in _REDUCTIONS]
    minimum, maximum = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    finite, broken = np.full(len(names), True), np.full(len(names), False)
    batch = None
    with closing(ObservingSession(watched, [*wanted, *also], threads=threads, in_order=True)) as session:
        for batch in batches:
            found = session.run({model.graph.input[0].name: batch}, [*wanted, *also])
            take({name: found.pop(name) for name in also})
            values = np.array([found[name] for name in wanted], np.float64).reshape(len(names), 3)
            minimum = np.fmin(minimum, values[:, 0])
            maximum = np.fmax(maximum, values[:, 1])
            # Finite values may have an infinite sum.
            finite &= np.isfinite(values[:, :2]).all(axis=1) & ~np.isnan(values[:, 2])
            broken |= np.isnan(values[:, 2])
    if batch is None:
        raise ImageError("there are no images to run the graph on; give at least one batch")
    statistics = {
        name: TensorStatistics(float(low), float(high), bool(sound))
        for name, low, high, sound in zip(names, minimum, maximum, finite, strict=True)
    }
    not_numbers = {name for name, is_so in zip(names, broken, strict=True) if is_so}
    for name, (source, op_type) in derived.items():
        statistics[name] = own = statistics[source]
        if source in not_numbers:
            not_numbers.add(name)
        elif op_type == "Relu":
            most = max(own.maximum, 0.0)
            statistics[name] = TensorStatistics(max(own.minimum, 0.0), most, math.isfinite(most))
    every = [str(value.name) for value in float_tensors(typed(model).graph)]
    return {name: statistics[name] for name in every if name in statistics}


def _watch(
    model: onnx.ModelProto, also: Sequence[str]
) -> tuple[list[str], dict[str, tuple[str, str]], onnx.ModelProto]:
    """Attach reductions to the float tensors whose range does not follow from another one's, and make some tensors outputs.

    Returns:
        The names of these tensors; of the others, which tensor's range theirs follows from, and by which operator; the new graph.
    """
    watched = typed(model)
    graph = watched.graph
    values = [value for value in float_tensors(graph) if not _of_border(value)]
    known = {str(value.name): value for value in values}
    names: list[str] = []
    derived: dict[str, tuple[str, str]] = {}
    for value in values:
        producer = value.producer()
        source = None if producer is None or not producer.inputs or producer.inputs[0] is None else producer.inputs[0]
        if producer is not None and source is not None and source.name in known and _keeps_range(producer):
            derived[str(value.name)] = str(source.name), producer.op_type
            continue
        names.append(str(value.name))
        nodes = [_reduction(value, op_type) for op_type in _REDUCTIONS]
        # Right after the tensor, so that it is freed at once: at the end, the reductions would keep every activation alive.
        if producer is None:
            graph.insert_before(graph[0], nodes)
        else:
            graph.insert_after(producer, nodes)
        graph.outputs.extend(node.outputs[0] for node in nodes)
    present = {output.name for output in graph.outputs}
    graph.outputs.extend(known[name] for name in also if name not in present)
    return names, derived, ir.to_proto(watched)


def _keeps_range(node: ir.Node) -> bool:
    """Return whether a node's result has its first input's values, each at least once, or these and zeros for negative ones."""
    return not node.domain and node.op_type in _KEEPING


def _of_border(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and of_border(producer.name)


def _reduction(value: ir.Value, op_type: str) -> ir.Node:
    name = _reduced(str(value.name), op_type)
    scalar = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([]))
    return ir.node(op_type, [value], {"keepdims": 0}, name=name, outputs=[scalar])


def _reduced(name: str, op_type: str) -> str:
    return f"{name}/{op_type}"
