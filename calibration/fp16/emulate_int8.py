"""A quantized graph's numbers on a CPU: its INT8 layers in integers, as a GPU computes them, and FP16 around them rounded.

A GPU's INT8 layer multiplies and adds integers. Its result is scaled in FP32 and, where QuantizeLinear follows, becomes an integer
in the same kernel, without FP16 in between ("Working with Quantized Types" in TensorRT's documentation). ONNX Runtime has such
kernels too, but not for S8 behind a ReLU, and none whose result is a float, except for matrix products. Otherwise it computes
Q/DQ in FP32, which takes twice as long as the FP32 graph. This module writes the graph so that the kernels serve:

- S8 becomes U8 with zero point 128, the same integers moved by 128.
- A ReLU between a layer and its QuantizeLinear becomes a Clip of the integers, which is the same.
- A matrix product with a float result, also a convolution 1 by 1, becomes ``MatMulIntegerToFloat``, ONNX Runtime's own operator.
- Other layers with a float result get the same products as FP32 numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
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

Array = npt.NDArray[Any]

_FP32, _U8, _S8 = ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8
_MIDDLE = 128  # S8's zero in U8
_LARGEST_BIAS = 2**30  # of INT32, with room for the sum that it is added to
_LEAST_SCALE = float(np.finfo(np.float32).tiny)
_CONTRIB = "com.microsoft"
_LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))


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
    names = {"weight": weight, "scale": one, "zero": np.array(_MIDDLE, np.uint8), "none": np.array(0, np.int8)}
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


@dataclass(frozen=True)
class _Layer:
    """A layer whose data and weight come from DequantizeLinear.

    Attributes:
        node: the layer.
        data: what it reads, U8 with zero point 128.
        step: the scale of ``data``.
        weight: S8.
        scale: of the weight: one number, or one per channel.
        axis: of the channels in the weight.
    """

    node: ir.Node
    data: ir.Value
    step: np.float32
    weight: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    axis: int

    @property
    def bias(self) -> ir.Value | None:
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def scales(self) -> npt.NDArray[np.float32]:
        """``(C,)``: one scale per channel."""
        return np.broadcast_to(self.scale, self.weight.shape[self.axis])


class _IntegerLayers:
    """Rewrites a graph's INT8 layers."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._integers: set[ir.Value] = set()
        self._plain: dict[ir.Value, ir.Value] = {}
        self._contrib = False

    def write(self) -> bool:
        """Rewrite the layers; return whether one became an operator of ONNX Runtime's own."""
        for node in list(self._graph):
            if node.op_type == "QuantizeLinear":
                self._to_unsigned(node)
        for layer in [found for node in list(self._graph) if (found := self._read(node)) is not None]:
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
            and all(_number_of(node.inputs[1]) is not None for node in (quantize, *readers))
        ):
            for node in (quantize, *readers):
                node.replace_input_with(2, self._constant("emulated/middle", np.array(_MIDDLE, np.uint8)))
            integers.type = ir.TensorType(_U8)
            self._integers.add(integers)

    def _read(self, node: ir.Node) -> _Layer | None:
        if node.op_type not in _LAYERS or node.domain or any(value is None for value in node.inputs[:2]):
            return None
        data, weight = (None if value is None else value.producer() for value in node.inputs[:2])
        if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
            return None
        integers, step = data.inputs[0], _number_of(data.inputs[1])
        constants = [None if value is None else value.const_value for value in weight.inputs]
        if integers not in self._integers or integers is None or step is None or None in constants:
            return None
        values, scale = (one.numpy() for one in constants[:2] if one is not None)
        if values.dtype != np.int8 or scale.ndim > 1 or any(one.numpy().any() for one in constants[2:] if one):
            return None
        axis = weight.attributes.get_int("axis", 1) % values.ndim
        return _Layer(node, integers, step, values, scale.astype(np.float32), axis)

    def _rewrite(self, layer: _Layer) -> None:
        node = layer.node
        data = node.inputs[0]
        assert data is not None  # it was read
        producer = data.producer()
        assert producer is not None  # a DequantizeLinear
        integers = producer.inputs[0]
        assert integers is not None  # perhaps clipped by now
        layer = _Layer(node, integers, layer.step, layer.weight, layer.scale, layer.axis)
        chain = self._requantized(node)
        if chain is not None and (bias := self._integer_bias(layer)) is not None:
            self._on_integers(layer, chain, bias)
        elif (matrix := self._matrix(layer)) is not None:
            self._product(layer, matrix)
        else:
            node.replace_input_with(0, self._dequantized(layer))
            shape = [-1 if i == layer.axis else 1 for i in range(layer.weight.ndim)]
            weight = layer.weight.astype(np.float32) * layer.scales.reshape(shape)
            node.replace_input_with(1, self._constant(f"{node.name}/exact", weight))

    def _requantized(self, node: ir.Node) -> list[ir.Node] | None:
        """Return what follows a layer up to QuantizeLinear, if nothing else reads what is between."""
        found: list[ir.Node] = []
        if node.op_type == "ConvTranspose":  # for which there is no integer kernel
            return None
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
            if len(found) > 1 or _ends(reader) is None:
                return None

    def _integer_bias(self, layer: _Layer) -> Array | None:
        """Return a layer's bias in steps of its products, as its kernel adds it; None if it does not fit INT32."""
        steps = layer.step * layer.scales
        if steps.min() < _LEAST_SCALE:
            return None
        if layer.bias is None:
            return np.zeros(0, np.int32)
        if layer.bias.const_value is None or layer.bias.shape != (len(steps),) or _scaled(layer.node):
            return None
        bias = np.rint(layer.bias.const_value.numpy().astype(np.float64) / steps)
        return bias.astype(np.int32) if (np.abs(bias) < _LARGEST_BIAS).all() else None

    def _on_integers(self, layer: _Layer, chain: Sequence[ir.Node], bias: Array) -> None:
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
        step = _number_of(quantize.inputs[1])
        assert step is not None  # it is one of the integers
        low, high = (
            np.uint8(np.clip(np.rint(np.float32(end) / step) + _MIDDLE, 0, 255)) for end in _ends(chain[0]) or ()
        )
        quantize.replace_input_with(0, node.outputs[0])
        integers = quantize.outputs[0]
        uses = list(integers.uses())
        clip = [integers, self._constant(f"{node.name}/low", low), self._constant(f"{node.name}/high", high)]
        clipped = self._append(quantize, "Clip", clip, f"{integers.name}/clip", _U8, integers.shape)
        for reader, position in uses:
            reader.replace_input_with(position, clipped)
        self._integers.add(clipped)

    def _matrix(self, layer: _Layer) -> npt.NDArray[np.int8] | None:
        """Return a layer's weight as a matrix, channels last, if it is a matrix product; its output is then replaced."""
        node = layer.node
        bias = layer.bias
        if node.outputs[0].is_graph_output() or node.op_type == "ConvTranspose" or _scaled(node):
            return None
        if bias is not None and (bias.const_value is None or bias.shape != (len(layer.scales),)):
            return None
        weight = layer.weight
        if node.op_type == "Conv":
            whole = node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
            padded = any(node.attributes.get_ints("pads", ()))
            plain = whole and not padded and node.attributes.get_int("group", 1) == 1 and layer.axis == 0
            return weight[:, :, 0, 0].T if plain and weight.shape[2:] == (1, 1) else None
        return weight.T if layer.axis == 0 else weight

    def _product(self, layer: _Layer, matrix: npt.NDArray[np.int8]) -> None:
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

    def _dequantized(self, layer: _Layer) -> ir.Value:
        """Return a layer's data as FP32, which is not rounded to FP16."""
        data = layer.data
        if data not in self._plain:
            source = data.producer()
            assert source is not None  # QuantizeLinear or Clip
            inputs = [data, self._constant(f"{data.name}/step", np.array(layer.step))]
            inputs.append(self._constant("emulated/middle", np.array(_MIDDLE, np.uint8)))
            self._plain[data] = self._append(
                source, "DequantizeLinear", inputs, f"{data.name}/exact", _FP32, data.shape
            )
        return self._plain[data]

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
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value


def _weight_for_here(weight: npt.NDArray[np.int8]) -> tuple[Array, int]:
    """Return a weight and its zero point in a type whose products this processor adds exactly."""
    return (weight, 0) if adds_exactly() else ((weight.astype(np.int16) + _MIDDLE).astype(np.uint8), _MIDDLE)


def _number_of(scale: ir.Value | None) -> np.float32 | None:
    """Return a scale that is one constant number."""
    if scale is None or scale.const_value is None or scale.const_value.size != 1:
        return None
    return np.float32(scale.const_value.numpy().reshape(()))


def _ends(node: ir.Node) -> tuple[float, float] | None:
    """Return between which values a node clips; None if it does something else."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip" or node.domain:
        return None
    ends = [-np.inf, np.inf]
    for position, value in enumerate(node.inputs[1:3]):
        if value is not None:
            if value.const_value is None:
                return None
            ends[position] = float(value.const_value.numpy().item())
    return ends[0], ends[1]


def _scaled(node: ir.Node) -> bool:
    """Return whether a Gemm scales its product or its bias, or transposes its data."""
    attributes = node.attributes
    return node.op_type == "Gemm" and (
        attributes.get_float("alpha", 1.0) != 1
        or attributes.get_float("beta", 1.0) != 1
        or bool(attributes.get_int("transA", 0))
    )
