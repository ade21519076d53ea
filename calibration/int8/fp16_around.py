"""A quantized graph with FP16 around its INT8 layers: Q and DQ take and give FP16, and everything else is FP16 too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
import onnx_ir.passes.common

from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.calibration.graph.typed import typed
from mtl_deploy.calibration.observe.statistics import TensorStatistics

OPSET = 19
"""The first opset in which QuantizeLinear and DequantizeLinear accept FP16."""

_FP16, _FP32 = ir.DataType.FLOAT16, ir.DataType.FLOAT


def to_half_around(model: onnx.ModelProto, statistics: Mapping[str, TensorStatistics] | None = None) -> onnx.ModelProto:
    """Convert everything in a quantized graph that is not INT8 to FP16, as :mod:`mtl_deploy.calibration.fp16.typing` does.

    Args:
        model: an FP32 graph with Q/DQ in the ``tensorrt`` style, whose scales are exact in FP16. It is not changed.
        statistics: of the FP32 graph's tensors, see :func:`~mtl_deploy.calibration.observe.statistics.observe`; without them
            only the scales of Q/DQ can keep a tensor in FP32 because of its values.

    Returns:
        the graph in opset 19 or higher; its inputs, outputs and their types are those of ``model``.
    """
    raised = _raise_opset(model)
    known = _ranges(raised) | dict(statistics or {})
    known |= {f"{name}/dq": seen for name, seen in known.items()}  # as quantize names them
    graph = typed(to_half(raised, known).model)
    for node in list(graph.graph):
        if node.op_type == "Cast":
            _spare_cast(graph.graph, node)
    ir.passes.common.RemoveUnusedNodesPass()(graph)
    return ir.to_proto(graph)


def _ranges(model: onnx.ModelProto) -> dict[str, TensorStatistics]:
    """Return the ranges of the quantized tensors from the graph's scales."""
    scales = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer if not one.dims}
    found: dict[str, TensorStatistics] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in scales:
            largest = 127 * float(scales[node.input[1]])
            found[node.input[0]] = TensorStatistics(-largest, largest)
    return found


def _raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if opset >= OPSET:
        return model
    raised = onnx.version_converter.convert_version(model, OPSET)
    raised.ir_version = max(raised.ir_version, 9)  # ONNX's own pairing with opset 19
    return raised


def _spare_cast(graph: ir.Graph, cast: ir.Node) -> None:
    """Remove a cast next to Q/DQ: let DequantizeLinear give FP16 itself, and QuantizeLinear take FP32 itself."""
    source = cast.inputs[0]
    if source is None or cast.outputs[0].dtype != _FP16 or source.dtype != _FP32:
        return
    producer = source.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        integers, scale, *zero = producer.inputs
        assert scale is not None  # every DequantizeLinear has one
        if not _fits_half(scale):
            return
        inputs = [integers, _scale(graph, scale, _FP16), *zero]
        output = ir.Value(name=f"{source.name}/half", type=ir.TensorType(_FP16), shape=source.shape)
        attributes = dict(producer.attributes)
        half = ir.Node(
            "", "DequantizeLinear", inputs, attributes.values(), name=f"{producer.name}/half", outputs=[output]
        )
        graph.insert_after(producer, half)
        ir.convenience.replace_all_uses_with(cast.outputs[0], output)
        return
    for reader, position in cast.outputs[0].uses():
        if reader.op_type == "QuantizeLinear" and position == 0:
            scale = reader.inputs[1]
            assert scale is not None  # every QuantizeLinear has one
            reader.replace_input_with(0, source)
            reader.replace_input_with(1, _scale(graph, scale, _FP32))


def _fits_half(scale: ir.Value) -> bool:
    if scale.const_value is None:
        return False
    array = scale.const_value.numpy()
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array, array.astype(np.float16).astype(array.dtype)))


def _scale(graph: ir.Graph, scale: ir.Value, wanted: ir.DataType) -> ir.Value:
    """Return a scale in another type, converting it once."""
    if scale.dtype == wanted:
        return scale
    assert scale.const_value is not None  # scales are constants here
    name = f"{scale.name}/{'half' if wanted == _FP16 else 'wide'}"
    if name in graph.initializers:
        return graph.initializers[name]
    array = scale.const_value.numpy().astype(np.float16 if wanted == _FP16 else np.float32)
    value = ir.Value(name=name, type=ir.TensorType(wanted), shape=scale.shape, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
