"""Graphs with types on every tensor, as the steps that choose precisions read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

import onnx
import onnx_ir as ir
import onnx_ir.passes.common


def typed(model: onnx.ModelProto, sides: Mapping[str, int] | None = None) -> ir.Model:
    """Return a graph with the inferred type and shape of every tensor; it shares its weights with the original.

    Args:
        model: the graph. It is not changed.
        sides: by name, the length of free sides. All other free sides are inferred anew: what the file says of them holds for any
            length.
    """
    graph: ir.Model = ir.from_proto(model)
    if sides is not None:
        values = [*graph.graph.inputs, *(output for node in graph.graph.all_nodes() for output in node.outputs)]
        for value in values:
            if value.shape is not None:
                value.shape = ir.Shape(
                    [side if isinstance(side, int) else sides.get(str(side.value)) for side in value.shape]
                )
    ir.passes.common.ShapeInferencePass()(graph)
    return graph


def prepared(model: onnx.ModelProto) -> ir.Model:
    """Return a graph with types, constants as initializers, and a name on every node."""
    graph = typed(model)
    ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    ir.passes.common.NameFixPass()(graph)
    return graph


def is_float(value: ir.Value | None) -> TypeGuard[ir.Value]:
    """Whether a value is a ``float32`` tensor."""
    return value is not None and value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)


def float_tensors(graph: ir.Graph) -> list[ir.Value]:
    """Return the ``float32`` tensors that depend on data, in the graph's order: its inputs and its nodes' outputs."""
    values = [*graph.inputs, *(output for node in graph if node.op_type != "Constant" for output in node.outputs)]
    return [value for value in values if value.dtype == ir.DataType.FLOAT and isinstance(value.type, ir.TensorType)]


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of a graph that has inner float tensors as additional outputs.

    Args:
        model: the graph. It is not changed.
        names: ``float32`` tensors of the graph; those that are outputs already stay where they are.

    Returns:
        the graph; its new outputs come after its own, in the order of ``names``.

    Raises:
        KeyError: a name is not that of a float tensor of the graph.
    """
    known = {str(value.name): value for value in float_tensors(typed(model).graph)}
    present = {output.name for output in model.graph.output}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(ir.to_proto(known[name]) for name in names if name not in present)
    return copy
