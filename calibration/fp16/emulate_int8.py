"""A quantized graph's numbers on a CPU: its INT8 layers in integers, as a GPU computes them, and FP16 around them rounded.

A GPU's INT8 layer multiplies and adds integers. Its result is scaled in FP32 and, where QuantizeLinear follows, becomes an integer
in the same kernel, without FP16 in between ("Working with Quantized Types" in TensorRT's documentation). ONNX Runtime has such
kernels too, but not for S8 behind a ReLU, and none whose result is a float, except for matrix products. Otherwise it computes
Q/DQ in FP32, which takes longer than the FP32 graph. This module writes the graph so that the kernels serve:

- S8 becomes U8 with zero point 128, the same integers moved by 128.
- A ReLU between a layer and its QuantizeLinear becomes a Clip of the integers, which is the same.
- A matrix product with a float result, also a convolution 1 by 1, becomes ``MatMulIntegerToFloat``, ONNX Runtime's own operator.
- Other layers with a float result get the same products as FP32 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common

from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.calibration.graph.typed import typed

from .emulate import write_rounding
from .int8_layer import Int8Layer, clipped_to, number_of, read_layer

Array = npt.NDArray[Any]

_FP32, _U8, _S8 = ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8
_MIDDLE = 128  # S8's zero in U8
_CONTRIB = "com.microsoft"


def emulate_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that gives a quantized graph's numbers on a CPU.

    Args:
        model: with Q/DQ in the ``tensorrt`` style: S8, zero point 0. What is FP16 in it is rounded, see
            :func:`~mtl_deploy.calibration.fp16.emulate.emulate_half`, except for what an INT8 layer reads, and what it gives to
            QuantizeLinear alone. It is not changed.
    """
    emulated = typed(model)
    if _IntegerLayers(emulated.graph).write():
        emulated.opset_imports[_CONTRIB] = 1
    ir.passes.common.RemoveUnusedNodesPass()(emulated)
    write_rounding(emulated.graph)
    return ir.to_proto(emulated)


@lru_cache(maxsize=1)
def adds_exactly() -> bool:
    """Return whether products of U8 and S8 are added without loss here.

    x86 processors without VNNI add pairs of them in 16 bits, which saturate. ONNX Runtime's kernels for two U8 do not.
    """
    data, weight = np.full((8, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    one = np.ones((), np.float32)
    names: dict[str, Array] = {
        "weight": weight,
        "scale": one,
        "zero": np.array(_MIDDLE, np.uint8),
        "none": np.array(0, np.int8),
    }
    inputs = ["image", "weight", "scale", "scale", "zero", "none"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulIntegerToFloat", inputs, ["sum"], domain=_CONTRIB)],
        "sums",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, data.shape)],
        [onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, (8, 16))],
        [onnx.numpy_helper.from_array(array, name) for name, array in names.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(_CONTRIB, 1)]
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    with closing(FrugalBackend(content, threads=1)) as backend:
        found = backend.run({"image": data}, ["sum"])["sum"]
    return bool((found == 64 * 127 * 127).all())


class _IntegerLayers:
    """Rewrites a graph's INT8 layers."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._integers: set[ir.Value] = set()
        self._dequantize: dict[ir.Value, ir.Value] = {}
        self._floats: dict[ir.Value, ir.Value] = {}
        self._contrib = False

    def write(self) -> bool:
        """Rewrite the layers; return whether one became an operator of ONNX Runtime's own."""
        for node in list(self._graph):
            if node.op_type == "QuantizeLinear":
                self._to_unsigned(node)
        for layer in [found for node in list(self._graph) if (found := read_layer(node, self._integers)) is not None]:
            self._rewrite(layer)
        return self._contrib

    def _to_unsigned(self, quantize: ir.Node) -> None:
        integers, readers = quantize.outputs[0], [reader for reader, _ in quantize.outputs[0].uses()]
        zeros = [node.inputs[2] if len(node.inputs) > 2 else None for node in (quantize, *readers)]
        if (
            integers.dtype == _S8
            and not integers.is_graph_output()
            and all(reader.op_type == "DequantizeLinear" for reader in readers)
            and all(zero is not None and zero.const_value is not None and not zero.shape for zero in zeros)
            and not any(zero.const_value.numpy().any() for zero in zeros if zero and zero.const_value)
            and all(number_of(node.inputs[1]) is not None for node in (quantize, *readers))
        ):
            for node in (quantize, *readers):
                node.replace_input_with(2, self._constant("emulated/middle", np.array(_MIDDLE, np.uint8)))
            integers.type = ir.TensorType(_U8)
            self._integers.add(integers)

    def _rewrite(self, layer: Int8Layer) -> None:
        node = layer.node
        data = node.inputs[0]
        assert data is not None  # it was read
        producer = data.producer()
        assert producer is not None  # a DequantizeLinear
        integers = producer.inputs[0]
        assert integers is not None  # perhaps clipped by now
        layer = Int8Layer(node, integers, layer.step, layer.weight, layer.scales, layer.axis)
        chain = self._requantized(node)
        if chain is not None and (bias := layer.integer_bias()) is not None:
            self._on_integers(layer, chain, bias)
        elif not node.outputs[0].is_graph_output() and (matrix := layer.matrix()) is not None:
            self._product(layer, matrix)
        else:
            self._in_floats(layer)

    def _requantized(self, node: ir.Node) -> list[ir.Node] | None:
        """Return what follows a layer up to QuantizeLinear, if nothing else reads what is between."""
        found: list[ir.Node] = []
        value = node.outputs[0]
        while True:
            uses = list(value.uses())
            if len(uses) != 1 or uses[0][1] != 0 or value.is_graph_output():
                return None
            reader = uses[0][0]
            found.append(reader)
            value = reader.outputs[0]
            if reader.op_type == "QuantizeLinear":
                return found if value in self._integers else None
            if len(found) > 1 or clipped_to(reader) is None:
                return None

    def _on_integers(self, layer: Int8Layer, chain: Sequence[ir.Node], bias: Array) -> None:
        """Write Q/DQ around a layer as ONNX Runtime's integer kernels want it."""
        node, quantize = layer.node, chain[-1]
        node.replace_input_with(0, self._dequantized(layer))
        weight, zero = _weight_for_here(layer.weight)
        name = f"{node.name}/exact"
        scale = self._constant(f"{name}/scale", layer.scales)
        zeros = self._constant(f"{name}/zero", np.full(len(layer.scales), zero, weight.dtype))
        inputs = [self._constant(f"{name}/q", weight), scale, zeros]
        node.replace_input_with(1, self._insert(node, "DequantizeLinear", inputs, f"{name}/dq", {"axis": layer.axis}))
        if bias.size:
            inputs = [
                self._constant(f"{node.name}/bias/q", bias),
                self._constant(f"{node.name}/bias/scale", layer.step * layer.scales),
            ]
            node.replace_input_with(
                2, self._insert(node, "DequantizeLinear", inputs, f"{node.name}/bias/dq", {"axis": 0})
            )
        node.outputs[0].type = ir.TensorType(_FP32)
        if len(chain) == 1:
            return
        step = number_of(quantize.inputs[1])
        assert step is not None  # it is one of the integers
        ends = np.rint(np.array(clipped_to(chain[0]), np.float32) / step) + _MIDDLE
        low, high = np.clip(ends, 0, 255).astype(np.uint8)
        quantize.replace_input_with(0, node.outputs[0])
        integers = quantize.outputs[0]
        uses = list(integers.uses())
        clip = [
            integers,
            self._constant(f"{node.name}/low", np.array(low)),
            self._constant(f"{node.name}/high", np.array(high)),
        ]
        clipped = self._append(quantize, "Clip", clip, f"{integers.name}/clip", _U8, integers.shape)
        for reader, position in uses:
            reader.replace_input_with(position, clipped)
        self._integers.add(clipped)

    def _product(self, layer: Int8Layer, matrix: npt.NDArray[np.int8]) -> None:
        node, data, name = layer.node, layer.data, f"{layer.node.name}/product"
        output = node.outputs[0]
        strides = list(node.attributes.get_ints("strides", ()))
        if any(stride > 1 for stride in strides):
            data = self._insert(
                node, "MaxPool", [data], f"{name}/at", {"kernel_shape": [1, 1], "strides": strides}, _U8
            )
        if node.op_type == "Conv":
            data = self._insert(node, "Transpose", [data], f"{name}/last", {"perm": [0, 2, 3, 1]}, _U8)
        weight, zero = _weight_for_here(np.ascontiguousarray(matrix))
        inputs: list[ir.Value | None] = [
            data,
            self._constant(f"{name}/weight", weight),
            self._constant(f"{name}/step", np.array(layer.step)),
            self._constant(f"{name}/scale", layer.scales),
            self._constant("emulated/middle", np.array(_MIDDLE, np.uint8)),
            self._constant(f"{name}/zero", np.full(len(layer.scales), zero, weight.dtype)),
        ]
        if layer.bias is not None:
            inputs.append(layer.bias)
        kind = _FP32 if node.op_type == "Conv" or output.dtype is None else output.dtype
        found = self._insert(node, "MatMulIntegerToFloat", inputs, name, {}, kind, domain=_CONTRIB)
        if node.op_type == "Conv":
            perm = {"perm": [0, 3, 1, 2]}
            found = self._insert(node, "Transpose", [found], f"{name}/first", perm, output.dtype or _FP32)
        found.shape = output.shape
        for reader, position in list(output.uses()):
            reader.replace_input_with(position, found)
        self._contrib = True

    def _in_floats(self, layer: Int8Layer) -> None:
        """Compute a layer's products in FP32. Behind DequantizeLinear ONNX Runtime may quantize FP32 weights, so a Cast serves."""
        node, data = layer.node, layer.data
        if data not in self._floats:
            wide = self._insert(node, "Cast", [data], f"{data.name}/wide", {"to": _FP32})
            middle = self._constant("emulated/middle_wide", np.array(_MIDDLE, np.float32))
            self._floats[data] = self._insert(node, "Sub", [wide, middle], f"{data.name}/whole", {})
            wide.shape = self._floats[data].shape = data.shape
        node.replace_input_with(0, self._floats[data])
        shape = [-1 if i == layer.axis else 1 for i in range(layer.weight.ndim)]
        weight = layer.weight.astype(np.float32) * (layer.step * layer.scales).reshape(shape)
        node.replace_input_with(1, self._constant(f"{node.name}/products", weight))

    def _dequantized(self, layer: Int8Layer) -> ir.Value:
        """Return a layer's data as FP32, which is not rounded to FP16."""
        data = layer.data
        if data not in self._dequantize:
            source = data.producer()
            assert source is not None  # QuantizeLinear or Clip
            inputs = [data, self._constant(f"{data.name}/step", np.array(layer.step))]
            inputs.append(self._constant("emulated/middle", np.array(_MIDDLE, np.uint8)))
            self._dequantize[data] = self._append(
                source, "DequantizeLinear", inputs, f"{data.name}/exact", _FP32, data.shape
            )
        return self._dequantize[data]

    def _insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: dict[str, Any],
        kind: ir.DataType = _FP32,
        domain: str = "",
    ) -> ir.Value:
        output = ir.Value(name=name, type=ir.TensorType(kind))
        self._graph.insert_before(
            before, ir.node(op_type, inputs, attributes, domain=domain, name=name, outputs=[output])
        )
        return output

    def _append(
        self, after: ir.Node, op_type: str, inputs: Sequence[ir.Value], name: str, kind: ir.DataType, shape: Any
    ) -> ir.Value:
        output = ir.Value(name=name, type=ir.TensorType(kind), shape=shape)
        self._graph.insert_after(after, ir.node(op_type, inputs, name=name, outputs=[output]))
        return output

    def _constant(self, name: str, array: Array) -> ir.Value:
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        tensor = ir.tensor(np.asarray(array), name=name)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value


def _weight_for_here(weight: npt.NDArray[np.int8]) -> tuple[Array, int]:
    """Return a weight and its zero point in a type whose products this processor adds exactly."""
    return (weight, 0) if adds_exactly() else ((weight.astype(np.int16) + _MIDDLE).astype(np.uint8), _MIDDLE)
