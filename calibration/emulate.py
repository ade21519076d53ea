"""An FP16 graph's rounding, shown on a processor that has no FP16 arithmetic.

On a CPU, ONNX Runtime runs an FP16 graph in FP32: it casts around each node, then removes the casts between nodes, and rounding and
overflow with them, even with all optimizations off (``InsertedPrecisionFreeCast_`` in its ``insert_cast_transformer.cc``). A graph
that overflows on a GPU gives sound values there. This module writes the rounding out, as casts that ONNX Runtime keeps.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from .observe import typed

_FP16, _FP32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP32 graph that rounds where a typed FP16 graph does.

    Each FP16 tensor becomes the FP32 result of its node, cast to FP16 and back: a kernel with FP16 operands, FP32 sums and an FP16
    result. A GPU may round less (fused layers pass FP32 on) or more (FP16 sums), so the two agree to FP16's accuracy, not to the
    bit. What exceeds FP16's range becomes infinite here as there.

    Args:
        model: as :func:`~mtl_deploy.calibration.half.to_half` makes it: inputs and outputs are not FP16. It is not changed.
    """
    emulated = typed(model)
    graph = emulated.graph
    for weight in graph.initializers.values():
        if weight.dtype == _FP16 and weight.const_value is not None:
            weight.const_value = ir.tensor(weight.const_value.numpy().astype(np.float32), name=weight.name)
            weight.type = ir.TensorType(_FP32)
    computed = [output for node in graph for output in node.outputs if output.dtype == _FP16]
    for output in computed:
        _round(graph, output)
    return ir.to_proto(emulated)


def _round(graph: ir.Graph, output: ir.Value) -> None:
    """Let a tensor's readers read it as FP32, rounded to FP16."""
    producer = output.producer()
    assert producer is not None  # it is a node's output
    readers = output.uses()
    if producer.op_type == "Cast":  # which rounds by itself
        widened = _cast(graph, producer, output, _FP32)
    else:
        output.type = ir.TensorType(_FP32)
        widened = _cast(graph, producer, output, _FP16, _FP32)
    for reader, position in readers:
        reader.replace_input_with(position, widened)


def _cast(graph: ir.Graph, producer: ir.Node, value: ir.Value, *types: ir.DataType) -> ir.Value:
    for wanted in types:
        name = f"{value.name}/{'half' if wanted == _FP16 else 'wide'}"
        output = ir.Value(name=name, type=ir.TensorType(wanted), shape=value.shape)
        cast = ir.node("Cast", [value], {"to": wanted}, name=name, outputs=[output])
        graph.insert_after(producer, cast)
        producer, value = cast, output
    return value
