"""Writing Q/DQ into a graph: activations pass QuantizeLinear and DequantizeLinear, weights are integers before DequantizeLinear.

The arithmetic is ONNX's: ``q = saturate(round_half_even(x / scale) + zero_point)``
(https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common

from mtl_deploy.calibration.fp16.plan import FP16_SMALLEST_NORMAL
from mtl_deploy.calibration.graph.typed import prepared
from mtl_deploy.calibration.observe.ranges import LEAST_SCALE, Range
from mtl_deploy.runtime.errors import OptionError, WorkError

from .fp16_around import to_half_around
from .hard_activations import HardActivation, hard_activation
from .processor_form import in_processor_form
from .qdq_placement import Edge, QdqPlacement, Style
from .weighted import bias_of, output_axis

__all__ = ["Quantized", "quantize", "to_half_around"]

WEIGHT_BITS = (7, 8)

_FP32 = ir.DataType.FLOAT
_LARGEST_SCALE = float(np.finfo(np.float32).max)
_LARGEST_BIAS = 2**30  # of INT32, with room for the sum that it is added to

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and the decisions behind it.

    Attributes:
        model: the graph; its inputs and outputs are those of the FP32 graph.
        style: ``tensorrt`` or ``cpu``.
        nodes: number of weighted nodes that compute in INT8.
        kept: by name of a weighted node that does not compute in INT8, the reason.
        ranges: by tensor, the ranges that were used.
        weight_bits: 8, or 7.
    """

    model: onnx.ModelProto
    style: Style
    nodes: int
    kept: dict[str, str]
    ranges: dict[str, Range]
    weight_bits: int = 8

    @property
    def description(self) -> str:
        """One line for people."""
        bits = "" if self.weight_bits == 8 else f", {self.weight_bits}-bit weights"
        return f"{self.nodes} of {self.nodes + len(self.kept)} weighted layers in INT8{bits}"

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict without the graph."""
        return {
            "summary": self.description,
            "style": self.style,
            "nodes": self.nodes,
            "kept": self.kept,
            "weight_bits": self.weight_bits,
            "ranges": {name: asdict(one) for name, one in self.ranges.items()},
        }


def quantize(
    model: onnx.ModelProto, ranges: Mapping[str, Range], placement: QdqPlacement, *, weight_bits: int = 8
) -> Quantized:
    """Write Q/DQ into an FP32 graph.

    - ``tensorrt``: S8 with zero point 0; one scale per activation tensor and one per weight channel, with weights from -127 to 127;
      biases in FP32. Scales are rounded up to the next FP16 number, so that converting them to FP16 later changes nothing; except
      for tensors below FP16's normal range, which stay in FP32.
    - ``cpu``: activations in U8 with a zero point, weights as above, biases in INT32 with the product of both scales, as ONNX
      Runtime's integer kernels read them. A channel whose bias would not fit gets a larger scale.

    Args:
        model: the graph that ``placement`` was made for, opset 13 or higher. It is not changed.
        ranges: by tensor, at least for ``placement.tensors``.
        placement: see :func:`~mtl_deploy.calibration.int8.qdq_placement.place`.
        weight_bits: 7 keeps weights within -64 to 63. Without VNNI, x86 adds pairs of products in 16 bits that saturate
            (``vpmaddubsw``): 2 * 255 * 127 exceeds 32767, 2 * 255 * 64 does not. ONNX Runtime's ``reduce_range`` is the same.

    Raises:
        OptionError: ``weight_bits`` is neither 7 nor 8.
        WorkError: a tensor has no range.
    """
    if weight_bits not in WEIGHT_BITS:
        raise OptionError(f"weights have 8 or 7 bits, not {weight_bits}")
    missing = [name for name in placement.tensors if name not in ranges]
    if missing:
        raise WorkError(
            f"tensor {missing[0]!r} has no range: the ranges are those of another graph; calibrate this one again"
        )
    graph = in_processor_form(model) if placement.style == "cpu" else prepared(model)
    _Writing(graph.graph, ranges, placement, weight_bits).apply()
    ir.passes.common.RemoveUnusedNodesPass()(graph)
    return Quantized(
        model=ir.to_proto(graph),
        style=placement.style,
        nodes=len(placement.nodes),
        kept=dict(placement.kept),
        ranges={name: ranges[name] for name in placement.tensors},
        weight_bits=weight_bits,
    )


def quantize_weight(weight: Array, axis: int, scale: Array, bits: int = 8) -> npt.NDArray[np.int8]:
    """Return a weight as integers, ``round_half_even(weight / scale)`` clipped to -127 and 127 (7 bits: -64 and 63).

    Args:
        weight: ``float32``.
        axis: of its output channels.
        scale: ``(C,) float32``.
        bits: 8 or 7.
    """
    low, high = (-127, 127) if bits == 8 else (-64, 63)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return np.clip(np.rint(weight / scale.reshape(shape)), low, high).astype(np.int8)


def weight_scale(weight: Array, axis: int, bits: int = 8) -> npt.NDArray[np.float32]:
    """Return the scale of each output channel: its largest magnitude becomes 127 (7 bits: 63); 1 for a channel of zeros."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, initial=0).astype(np.float64)
    scale = largest / (127 if bits == 8 else 63)
    return np.where(scale > np.finfo(np.float32).tiny, scale, 1).astype(np.float32)


def fp16_above(scale: Array) -> npt.NDArray[np.float32]:
    """Return scales rounded up to the next FP16 number, as FP32; those beyond FP16's largest number are unchanged."""
    with np.errstate(over="ignore"):
        half = np.asarray(scale, np.float32).astype(np.float16)
        half = np.where(half.astype(np.float32) < scale, np.nextafter(half, np.float16(np.inf)), half)
    return np.where(np.isfinite(half), half, scale).astype(np.float32)


class _Writing:
    """Writes a placement into a graph, with one Q/DQ pair per tensor, however many nodes read it."""

    def __init__(self, graph: ir.Graph, ranges: Mapping[str, Range], placement: QdqPlacement, weight_bits: int) -> None:
        self._graph = graph
        self._ranges = ranges
        self._placement = placement
        self._bits = weight_bits
        self._nodes = {str(node.name): node for node in graph}
        self._activations: dict[ir.Value, ir.Value] = {}
        self._hard: dict[ir.Value, HardActivation] = {}
        self._weights: dict[tuple[ir.Value, int], ir.Value] = {}
        self._cpu = placement.style == "cpu"

    def apply(self) -> None:
        for name in self._placement.nodes:
            self._weigh(self._nodes[name])
        for edge in self._placement.edges:
            node = self._nodes[edge.node]
            value = node.inputs[edge.position]
            assert value is not None  # the placement saw a tensor there
            if value not in self._activations:
                if self._cpu and (hard := hard_activation(value, self._ranges[edge.ranged])) is not None:
                    self._hard[value] = hard
                self._activations[value] = self._activation(value, edge)
            node.replace_input_with(edge.position, self._activations[value])
        for value, hard in self._hard.items():
            hard.write(self._activations[value], self._constant)

    def _activation(self, value: ir.Value, edge: Edge) -> ir.Value:
        scale, zero = self._hard[value].ends if value in self._hard else self._ends(edge.ranged)
        ends = self._constant(f"{value.name}/scale", scale), self._constant(f"{value.name}/zero", zero)
        kind = ir.DataType.UINT8 if self._cpu else ir.DataType.INT8
        integers = ir.Value(name=f"{value.name}/q", type=ir.TensorType(kind), shape=value.shape)
        rounded = ir.Value(name=f"{value.name}/dq", type=ir.TensorType(_FP32), shape=value.shape)
        nodes = [
            ir.node("QuantizeLinear", [value, *ends], name=f"{value.name}/quantize", outputs=[integers]),
            ir.node("DequantizeLinear", [integers, *ends], name=f"{value.name}/dequantize", outputs=[rounded]),
        ]
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], nodes)
        else:
            self._graph.insert_after(producer, nodes)
        return rounded

    def _ends(self, tensor: str) -> tuple[Array, Array]:
        chosen = self._ranges[tensor]
        if not self._cpu:
            return _for_half(np.array(chosen.symmetric_scale)), np.array(0, np.int8)
        scale, zero = chosen.asymmetric()
        return np.array(scale, np.float32), np.array(zero, np.uint8)

    def _weigh(self, node: ir.Node) -> None:
        value, bias = node.inputs[1], bias_of(node) if self._cpu else None
        assert value is not None  # a node that the placement quantizes
        axis = output_axis(node)
        if bias is None:
            if (value, axis) not in self._weights:
                weight = _array(value)
                scale = weight_scale(weight, axis, self._bits)
                self._weights[value, axis] = self._weight(
                    node, str(value.name), weight, axis, scale if self._cpu else _for_half(scale)
                )
            node.replace_input_with(1, self._weights[value, axis])
            return
        # The bias's scale contains both scales, so nodes that share a weight get a copy each.
        weight, offsets = _array(value), _array(bias).astype(np.float64)
        step = float(self._ends(self._ranged(node))[0])
        # The bias's integers must fit INT32, and its scale must be a normal float32, however small the activations are.
        smallest = np.minimum(
            np.maximum(np.abs(offsets) / (step * _LARGEST_BIAS), 2 * LEAST_SCALE / step), _LARGEST_SCALE
        )
        scale = np.maximum(weight_scale(weight, axis, self._bits), smallest).astype(np.float32)
        node.replace_input_with(1, self._weight(node, f"{node.name}/weight", weight, axis, scale))
        whole = (scale * np.float32(step)).astype(np.float32)
        integers = np.clip(np.rint(offsets / whole), -_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32)
        node.replace_input_with(2, self._dequantized(node, f"{node.name}/bias", integers, 0, whole))

    def _ranged(self, node: ir.Node) -> str:
        return next(e.ranged for e in self._placement.edges if e.node == node.name and e.position == 0)

    def _weight(self, node: ir.Node, name: str, weight: Array, axis: int, scale: Array) -> ir.Value:
        return self._dequantized(node, name, quantize_weight(weight, axis, scale, self._bits), axis, scale)

    def _dequantized(self, node: ir.Node, name: str, integers: Array, axis: int, scale: Array) -> ir.Value:
        inputs = [
            self._constant(f"{name}/q", integers),
            self._constant(f"{name}/scale", scale),
            self._constant(f"{name}/zero", np.zeros(scale.shape, integers.dtype)),
        ]
        output = ir.Value(name=f"{name}/dq", type=ir.TensorType(_FP32), shape=ir.Shape(integers.shape))
        dequantize = ir.node("DequantizeLinear", inputs, {"axis": axis}, name=f"{name}/dequantize", outputs=[output])
        self._graph.insert_before(node, dequantize)
        return output

    def _constant(self, name: str, array: Array) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self._graph.register_initializer(value)
        return value


def _for_half(scale: Array) -> npt.NDArray[np.float32]:
    """Round scales up to FP16 numbers, except for tensors so small that they stay in FP32 anyway."""
    small = 127 * scale.max() < FP16_SMALLEST_NORMAL
    return scale.astype(np.float32) if small else fp16_above(scale)


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None  # a weight
    array: Array = value.const_value.numpy()
    return array
