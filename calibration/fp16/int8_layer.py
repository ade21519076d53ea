"""A layer with Q/DQ on its data and its weight: what its integers are, and what an integer kernel can make of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

_LAYERS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
_LARGEST_BIAS = 2**30  # of INT32, with room for the sum that it is added to
_LEAST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Int8Layer:
    """A layer whose data and weight come from DequantizeLinear.

    Attributes:
        node: the layer.
        data: what it reads, U8 with zero point 128.
        step: the scale of ``data``.
        weight: S8.
        scales: ``(C,)``: of the weight, one per channel.
        axis: of the channels in the weight.
    """

    node: ir.Node
    data: ir.Value
    step: np.float32
    weight: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    axis: int

    @property
    def bias(self) -> ir.Value | None:
        """The layer's bias, not quantized; None if it has none."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    def integer_bias(self) -> Array | None:
        """Return the bias in steps of the products, as integer kernels add it; empty if there is none, None if it does not fit."""
        if self.node.op_type == "ConvTranspose" or self._is_scaled():  # no integer kernel
            return None
        steps = self.step * self.scales
        if steps.min() < _LEAST_SCALE:
            return None
        if self.bias is None:
            return np.zeros(0, np.int32)
        if self.bias.const_value is None or self.bias.shape != (len(steps),):
            return None
        bias = np.rint(self.bias.const_value.numpy().astype(np.float64) / steps)
        return bias.astype(np.int32) if (np.abs(bias) < _LARGEST_BIAS).all() else None

    def matrix(self) -> npt.NDArray[np.int8] | None:
        """Return the weight as a matrix, channels last, if the layer is a matrix product."""
        node, bias = self.node, self.bias
        if node.op_type == "ConvTranspose" or self._is_scaled():
            return None
        if bias is not None and (bias.const_value is None or bias.shape != (len(self.scales),)):
            return None
        weight = self.weight
        if node.op_type == "Conv":
            whole = node.attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
            padded = any(node.attributes.get_ints("pads", ()))
            plain = whole and not padded and node.attributes.get_int("group", 1) == 1 and self.axis == 0
            return weight[:, :, 0, 0].T if plain and weight.shape[2:] == (1, 1) else None
        return weight.T if self.axis == 0 else weight

    def _is_scaled(self) -> bool:
        """Return whether it is a Gemm that scales its product or its bias, or transposes its data."""
        attributes = self.node.attributes
        return self.node.op_type == "Gemm" and (
            attributes.get_float("alpha", 1.0) != 1
            or attributes.get_float("beta", 1.0) != 1
            or bool(attributes.get_int("transA", 0))
        )


def read_layer(node: ir.Node, known: Collection[ir.Value]) -> Int8Layer | None:
    """Return a node as an INT8 layer; None if it is none.

    Args:
        node: any node.
        known: the tensors of integers that a layer may read.
    """
    if node.op_type not in _LAYERS or node.domain or any(value is None for value in node.inputs[:2]):
        return None
    data, weight = (None if value is None else value.producer() for value in node.inputs[:2])
    if data is None or weight is None or {data.op_type, weight.op_type} != {"DequantizeLinear"}:
        return None
    integers, step = data.inputs[0], number_of(data.inputs[1])
    constants = [None if value is None else value.const_value for value in weight.inputs]
    if integers not in known or integers is None or step is None or None in constants:
        return None
    values, scale = (one.numpy() for one in constants[:2] if one is not None)
    if values.dtype != np.int8 or scale.ndim != 1 or any(one.numpy().any() for one in constants[2:] if one):
        return None
    axis = weight.attributes.get_int("axis", 1) % values.ndim
    return Int8Layer(node, integers, step, values, scale.astype(np.float32), axis)


def number_of(scale: ir.Value | None) -> np.float32 | None:
    """Return a scale that is one constant number."""
    if scale is None or scale.const_value is None or scale.const_value.size != 1:
        return None
    return np.float32(scale.const_value.numpy().reshape(()))


def clipped_to(node: ir.Node) -> tuple[float, float] | None:
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
