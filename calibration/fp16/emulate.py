"""An FP16 graph's rounding, emulated on a CPU that has no FP16 arithmetic.

On a CPU, ONNX Runtime runs an FP16 graph in FP32: it casts around each node, then removes the casts between nodes, and rounding and
overflow with them, even with all optimizations off (``InsertedPrecisionFreeCast_`` in its ``insert_cast_transformer.cc``). A graph
that overflows on a GPU gives correct values there. This module writes the rounding into the graph, as casts that ONNX Runtime
keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import typed
from mtl_deploy.runtime.errors import VerificationError

Array = npt.NDArray[Any]

_FP16, _FP32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
_KEEPING = frozenset(("Clip", "Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))
"""Operators that give the same whether their input is rounded or their result: they select values, or clip them at FP16 numbers.
Rounding keeps the order of numbers."""


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP32 graph that rounds where a typed FP16 graph does.

    Each FP16 tensor becomes the FP32 result of its node, cast to FP16 and back: a kernel with FP16 operands, FP32 sums and an FP16
    result. A GPU may round less (fused layers pass FP32 on) or more (FP16 sums), so the two agree to FP16's accuracy, not bit by
    bit. Values beyond FP16's range become infinite on both.

    Args:
        model: as :func:`~mtl_deploy.calibration.fp16.typing.to_half` makes it: inputs and outputs are not FP16. It is not changed.
    """
    emulated = typed(model)
    write_rounding(emulated.graph)
    return ir.to_proto(emulated)


def write_rounding(graph: ir.Graph) -> None:
    """Compute in FP32 what a graph computes in FP16, and round where it rounds; see :func:`emulate_half`.

    A tensor whose only reader is a ReLU, a pool or another of :data:`_KEEPING` is rounded behind that one, which gives the same
    values with less work, and once.

    Args:
        graph: with types. It is changed.
    """
    for weight in graph.initializers.values():
        if weight.dtype == _FP16 and weight.const_value is not None:
            weight.const_value = ir.tensor(weight.const_value.numpy().astype(np.float32), name=weight.name)
            weight.type = ir.TensorType(_FP32)
    rounded: set[ir.Value] = set()
    for node in list(graph):
        for output in node.outputs:
            if output.dtype != _FP16:
                continue
            if _keeps(node) and node.inputs[0] in rounded:
                output.type = ir.TensorType(_FP32)
                rounded.add(output)
            elif node.op_type != "Cast" and _is_rounded_later(output):  # a Cast rounds already
                output.type = ir.TensorType(_FP32)
            else:
                rounded.add(_round(graph, output))


def _keeps(node: ir.Node) -> bool:
    """Return whether a node is of :data:`_KEEPING`; the ends of a Clip are constants, so FP16 numbers."""
    ends = node.inputs[1:] if node.op_type == "Clip" else ()
    return (
        not node.domain and node.op_type in _KEEPING and all(end is None or end.const_value is not None for end in ends)
    )


def _is_rounded_later(value: ir.Value) -> bool:
    """Return whether a tensor's only reader gives the same if its result is rounded instead."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return False
    reader, position = uses[0]
    return position == 0 and _keeps(reader) and reader.outputs[0].dtype == _FP16


def widen_half(model: onnx.ModelProto, weights: Mapping[str, Array], chosen: Collection[str] = ()) -> onnx.ModelProto:
    """Return an FP16 graph with its computation in FP32 and with the original's weights: the graph without its rounding.

    Errors smaller than the rounding would go unnoticed. In FP32 the graph must be as accurate as the original, and each of its
    weights must be exactly the original's, rounded to FP16: to nearest, or for those in ``chosen`` up or down.

    Args:
        model: as :func:`~mtl_deploy.calibration.fp16.typing.to_half` makes it. It is not changed.
        weights: of the FP32 graph that it was made from, by name, including those that nodes hold.
        chosen: names of weights whose rounding was chosen, see :mod:`mtl_deploy.calibration.fp16.rounding`.

    Raises:
        VerificationError: a weight is not the original's; the message names it.
    """
    require_rounded(model, weights, chosen)
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    for tensor in widened.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights[original_name(tensor.name, weights)], tensor.name))
    for node in widened.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
    del widened.graph.value_info[:]
    return widened


def require_rounded(model: onnx.ModelProto, weights: Mapping[str, Array], chosen: Collection[str] = ()) -> None:
    """Check that each weight of an FP16 graph is the original's, rounded to FP16 where it is FP16.

    They are rounded to nearest, or for those in ``chosen`` up or down.

    Args:
        model: as :func:`~mtl_deploy.calibration.fp16.typing.to_half` makes it.
        weights: of the FP32 graph that it was made from, by name, including those that nodes hold.
        chosen: names of weights whose rounding was chosen, see :mod:`mtl_deploy.calibration.fp16.rounding`.

    Raises:
        VerificationError: one is not; the message names it.
    """
    for tensor in model.graph.initializer:
        found, name = onnx.numpy_helper.to_array(tensor), original_name(tensor.name, weights)
        wanted = weights.get(name)
        if wanted is None or not (_is_rounded(found, wanted) or (name in chosen and _is_beside(found, wanted))):
            raise VerificationError(f"weight {tensor.name!r} is not the FP32 graph's weight, rounded")


def original_name(name: str, weights: Collection[str]) -> str:
    """Return what a weight of an FP16 graph is called in the graph that it was made from."""
    return name if name in weights else name.removesuffix("/fp16")


def _is_rounded(found: Array, wanted: Array) -> bool:
    rounded = wanted.astype(found.dtype) if found.dtype == np.float16 and wanted.dtype == np.float32 else wanted
    return found.dtype == rounded.dtype and np.array_equal(found, rounded)


def _is_beside(found: Array, wanted: Array) -> bool:
    """Whether each FP16 value is one of the two next to the FP32 value: rounded up or down."""
    if found.dtype != np.float16 or wanted.dtype != np.float32 or found.shape != wanted.shape:
        return False
    below, above = (np.nextafter(found, np.float16(side)).astype(np.float32) for side in (-np.inf, np.inf))
    return bool(np.all((found == wanted) | ((below < wanted) & (wanted < above))))


def _round(graph: ir.Graph, output: ir.Value) -> ir.Value:
    """Give a tensor's readers its FP32 value, rounded to FP16; return it."""
    producer = output.producer()
    assert producer is not None  # it is a node's output
    readers = output.uses()
    if producer.op_type == "Cast":  # which rounds already
        widened = _cast(graph, producer, output, _FP32)
    else:
        output.type = ir.TensorType(_FP32)
        widened = _cast(graph, producer, output, _FP16, _FP32)
    for reader, position in readers:
        reader.replace_input_with(position, widened)
    return widened


def _cast(graph: ir.Graph, producer: ir.Node, value: ir.Value, *types: ir.DataType) -> ir.Value:
    for wanted in types:
        name = f"{value.name}/{'half' if wanted == _FP16 else 'wide'}"
        output = ir.Value(name=name, type=ir.TensorType(wanted), shape=value.shape)
        cast = ir.node("Cast", [value], {"to": wanted}, name=name, outputs=[output])
        graph.insert_after(producer, cast)
        producer, value = cast, output
    return value
