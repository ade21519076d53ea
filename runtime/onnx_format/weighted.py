"""The operators that carry weights: which of their inputs are the weights and the bias, and how many multiply-adds they take.

The one table for all rooms: what a graph costs (``export/graph/cost.py``), where its backbone begins (``bench/sections/where``),
which layers are typed FP16, and which can become INT8 (``calibration/``). It covers ONNX's own operators up to opset 28
(https://onnx.ai/onnx/operators/): convolutions, matrix products, recurrent layers and attention. ONNX Runtime's fused and
quantized ones (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md) are recognised by their names.

Multiply-adds (MACs) are those of the products of data with weights, and of data with data in a matrix product or attention. As is
the custom (``torch.utils.flop_counter``, fvcore), what is done element by element is not counted: biases, activations, gates,
normalisation, and the interpolation of a deformable convolution. A mask or a causal attention takes nothing off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from .einsum import einsum_multiply_adds

OPSET = 28
"""The newest opset of ONNX's own operators that the table covers."""

Shape = Sequence[Any] | None
"""A tensor's sizes, integers as far as they are known; None where not even the rank is."""


class _UnknownSizeError(Exception):
    """A size that the count needs is not known."""


@dataclass(frozen=True)
class _Node:
    inputs: Sequence[Shape]
    outputs: Sequence[Shape]
    attributes: Mapping[str, Any]

    def input(self, position: int, first: int = 0, end: int | None = None) -> list[int]:
        """Return the sizes of an input, or some of them; those that are not asked for need not be known."""
        return _known(self.inputs[position], first, end)

    def output(self) -> list[int]:
        """Return the sizes of the first output."""
        return _known(self.outputs[0])

    def number(self, name: str) -> int:
        """Return an integer attribute; 0 where it is not given."""
        return int(self.attributes.get(name, 0))


def _known(shape: Shape, first: int = 0, end: int | None = None) -> list[int]:
    sizes = None if shape is None else list(shape)[first:end]
    if sizes is None or not all(isinstance(size, int) for size in sizes):
        raise _UnknownSizeError
    return sizes


@dataclass(frozen=True)
class WeightedOperator:
    """An operator that carries weights.

    Attributes:
        weights: positions of the inputs that are its weights, or may be: either side of a matrix product can be the constant one.
        count: its multiply-adds.
        bias: position of its bias; None: it has none.
        variadic: whether all inputs may be weights, however many there are.
    """

    weights: tuple[int, ...]
    count: Callable[[_Node], int]
    bias: int | None = None
    variadic: bool = False

    def may_be_weight(self, position: int) -> bool:
        """Return whether the input at a position is a weight where it is constant."""
        return self.variadic or position in self.weights

    def may_be_parameter(self, position: int) -> bool:
        """Return whether the input at a position is a weight or the bias where it is constant."""
        return self.may_be_weight(position) or position == self.bias


def _convolution(weight: int) -> Callable[[_Node], int]:
    return lambda node: prod(node.output()) * prod(node.input(weight)[1:])


def _deformable_convolution(node: _Node) -> int:
    """Count by the offsets, of which there is one set for each place of the output."""
    images, places = node.input(2, 0, 1), node.input(2, 2)
    return prod(images) * prod(places) * prod(node.input(1))


def _transposed_convolution(node: _Node) -> int:
    return prod(node.input(0)) * prod(node.input(1)[1:])


def _product(node: _Node, right: int = 1) -> int:
    """Count a matrix product by its left operand and its result; what they leave open, the right operand says."""
    left, other, result = node.inputs[0], node.inputs[right] or (), node.outputs[0]
    if not left or result is None:
        raise _UnknownSizeError
    sizes = list(result)
    if len(other) > 1:
        sizes[-1] = _one_of((sizes[-1], other[-1]))
        if len(left) > 1:
            sizes[-2] = _one_of((sizes[-2], left[-2]))
    return prod(_known(sizes)) * _one_of((left[-1], *other[-2:][:1]))


def _gemm(node: _Node) -> int:
    rows, inner = node.inputs[0] or (None, None)
    same, columns = node.inputs[1] or (None, None)
    if node.number("transA"):
        rows, inner = inner, rows
    if node.number("transB"):
        same, columns = columns, same
    result = node.outputs[0] or (None, None)
    return _one_of((rows, result[0])) * _one_of((inner, same)) * _one_of((columns, result[1]))


def _one_of(sizes: Sequence[Any]) -> int:
    """Return the first size that is known, of several that are equal."""
    for size in sizes:
        if isinstance(size, int):
            return size
    raise _UnknownSizeError


def _einsum(node: _Node) -> int:
    return einsum_multiply_adds(
        str(node.attributes["equation"]), [node.input(position) for position in range(len(node.inputs))]
    )


def _recurrent(node: _Node) -> int:
    """Count each step of each sequence: the input by W, the state by R, of each gate and direction."""
    steps = node.input(0, 0, 2)  # steps and sequences, in the order that the layout gives
    return prod(steps) * (prod(node.input(1)) + prod(node.input(2)))


def _attention(node: _Node) -> int:
    """Count queries by keys, and their weights by values; 3D inputs have their heads side by side, 4D ones apart."""
    keys = node.input(1, -2)[0]
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        keys += node.input(4, -2)[0]  # those of earlier calls
    return (prod(node.input(0)) + prod(node.output())) * keys


def _linear_attention(node: _Node) -> int:
    """Count, for each token, the update of each head's state and its product with each query."""
    batch, tokens, keys = node.input(1)
    heads, queries = node.number("kv_num_heads"), node.number("q_num_heads")
    state = (keys // heads) * (node.input(2)[-1] // heads)
    rule = node.attributes.get("update_rule", "gated_delta")
    return batch * tokens * state * (queries + heads * (2 if "delta" in str(rule) else 1))


WEIGHTED: Mapping[str, WeightedOperator] = {
    "Attention": WeightedOperator((0, 1, 2), _attention),
    "CausalConvWithState": WeightedOperator((1,), _convolution(1), bias=2),
    "Conv": WeightedOperator((1,), _convolution(1), bias=2),
    "ConvInteger": WeightedOperator((1,), _convolution(1)),
    "ConvTranspose": WeightedOperator((1,), _transposed_convolution, bias=2),
    "DeformConv": WeightedOperator((1,), _deformable_convolution, bias=3),
    "Einsum": WeightedOperator((0, 1), _einsum, variadic=True),
    "GRU": WeightedOperator((1, 2), _recurrent, bias=3),
    "Gemm": WeightedOperator((0, 1), _gemm, bias=2),
    "LSTM": WeightedOperator((1, 2), _recurrent, bias=3),
    "LinearAttention": WeightedOperator((0, 1, 2), _linear_attention),
    "MatMul": WeightedOperator((0, 1), _product),
    "MatMulInteger": WeightedOperator((0, 1), _product),
    "QLinearConv": WeightedOperator((3,), _convolution(3), bias=8),
    "QLinearMatMul": WeightedOperator((0, 3), lambda node: _product(node, 3)),
    "RNN": WeightedOperator((1, 2), _recurrent, bias=3),
}
"""By ONNX's names."""

_NAMES = re.compile(f"(?:{'|'.join(sorted(WEIGHTED, key=len, reverse=True))})(?![a-z])")


@lru_cache(maxsize=1024)
def is_weighted(op_type: str) -> bool:
    """Return whether an operator carries weights, whatever it was fused with: ``FusedGemm``, ``NhwcFusedConv``, ``MatMulNBits``.

    Args:
        op_type: ONNX's name for it, or ONNX Runtime's.
    """
    return op_type in WEIGHTED or _NAMES.search(op_type) is not None


def multiply_adds(
    op_type: str, inputs: Sequence[Shape], outputs: Sequence[Shape], attributes: Mapping[str, Any], domain: str = ""
) -> int | None:
    """Count the multiply-adds of one call of a node.

    Args:
        op_type: the node's operator.
        inputs: the shapes of its inputs; None also where one is left out.
        outputs: the shapes of its outputs.
        attributes: by name; those that are not given have ONNX's defaults.
        domain: the operator's; only ONNX's own, the empty one, is counted.

    Returns:
        The number for all images of the batch; 0 for an operator without weights; None where a size that the count needs is not
            known, or where the sizes do not fit the operator.
    """
    operator = None if domain else WEIGHTED.get(op_type)
    if operator is None:
        return 0
    try:
        return operator.count(_Node(inputs, outputs, attributes))
    except (_UnknownSizeError, ArithmeticError, LookupError, ValueError):
        return None
