"""The parts of a graph that ONNX Runtime runs entirely on integers.

Its integer kernels read and write 8 bits (``QLinearConv``, ``QLinearAdd``, ...), so nothing between two of them is FP32. It uses
one for an operator whose inputs come from a DequantizeLinear and whose output goes to a QuantizeLinear
(https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/optimizer/qdq_transformer). A ReLU in front of a
QuantizeLinear whose zero point is the smallest integer is removed: clipping does the same.

Where it has no integer kernel for an activation, that has Q/DQ on both sides all the same if only integer nodes follow, so that
they are not cut off; :mod:`mtl_deploy.calibration.int8.hard_activations` has integer forms for some. A sigmoid stays in FP32,
though ``QLinearSigmoid`` exists: a gate's product on integers would round its other factor once more.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float

from .processor_form import SILU

MOVES = frozenset(("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"))
"""Operators that only move values: their output has the range of their input."""

_ARITHMETIC = frozenset(("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool"))
_ACTIVATIONS = frozenset(("HardSigmoid", "HardSwish", SILU))
_CLIPPING = frozenset(("Relu", "Clip"))
_TO_FLOAT = frozenset(("Gemm", "MatMul"))
"""Their integer kernels can also give FP32, but not in front of a ReLU, which ONNX Runtime (1.31) takes as part of the pattern."""


class Regions:
    """The nodes that compute on integers, given the weighted nodes that do.

    Another operator is one of them if all its inputs come from integer nodes, or are quantized for a weighted one, and an integer
    node reads its output. An operator that feeds only FP32 nodes (a pool in front of a head's last layer) stays in FP32, which is
    more accurate and costs little.

    Args:
        graph: with types.
        weighted: the weighted nodes that compute in INT8.
    """

    def __init__(self, graph: ir.Graph, weighted: list[ir.Node]) -> None:
        self._graph = graph
        self._weighted = set(weighted)
        self._integer: set[ir.Node] = set()
        self._left: set[ir.Node] = set()  # activations in FP32 whose result is not rounded for all its readers
        while self._find_integers():
            self._left |= self._float_for_some()
        self._tensors = dict.fromkeys(self._find())

    def tensors(self) -> Iterator[ir.Value]:
        """Yield the tensors that get Q/DQ."""
        return iter(self._tensors)

    def is_integer(self, node: ir.Node) -> bool:
        """Whether a node computes on integers."""
        return node in self._integer

    def is_computed(self, value: ir.Value) -> bool:
        """Whether a tensor is the result of an integer node, so that all its readers read the quantized tensor."""
        producer = _before_clipping(value).producer()
        return producer is not None and producer in self._integer

    def source(self, value: ir.Value) -> ir.Value:
        """Return the tensor whose range a tensor has: the one that integer nodes moved the values of."""
        producer = value.producer()
        while producer is not None and producer in self._integer and producer.op_type in MOVES:
            origin = producer.inputs[0]
            assert origin is not None  # these operators have one
            value, producer = origin, origin.producer()
        return value

    def _find_integers(self) -> bool:
        """Find the integer nodes, given activations that are left; return whether others must be left too."""
        self._integer = set(self._weighted)
        for node in self._graph:
            known = node.op_type in MOVES | _ARITHMETIC | _ACTIVATIONS and node not in self._left
            if known and self._follows_integers(node):
                self._integer.add(node)
        self._drop_what_feeds_no_integers()
        return bool(self._float_for_some())

    def _float_for_some(self) -> set[ir.Node]:
        """Return the activations computed in FP32 whose result another node reads in FP32: it need not be rounded for that."""
        return {
            node
            for node in self._integer
            if node.op_type == SILU and any(reader not in self._integer for reader, _ in node.outputs[0].uses())
        }

    def _follows_integers(self, node: ir.Node) -> bool:
        data = [value for value in node.inputs if is_float(value)]
        if not data or not all(is_float(output) for output in node.outputs[:1]) or len(node.outputs) != 1:
            return False
        if node.op_type == "AveragePool" and "dilations" in node.attributes:
            return False
        if node.op_type == "GlobalAveragePool" and data[0].producer() in self._left:
            return True  # rounding for the pool alone: the errors average out, and the pool of integers runs in NHWC
        return all(not value.is_initializer() and self._is_quantized(value) for value in data)

    def _is_quantized(self, value: ir.Value) -> bool:
        """Whether a tensor gets Q/DQ in any case: it is the result of an integer node, or a weighted one reads it."""
        return self.is_computed(value) or any(node in self._weighted and at == 0 for node, at in value.uses())

    def _drop_what_feeds_no_integers(self) -> None:
        for node in reversed(self._graph):
            if node not in self._integer or node in self._weighted:
                continue
            readers = [reader for reader, _ in _after_clipping(node.outputs[0]).uses()]
            if node.outputs[0].is_graph_output() or not any(reader in self._integer for reader in readers):
                self._integer.discard(node)

    def _find(self) -> Iterator[ir.Value]:
        for node in self._graph:
            if node not in self._integer:
                continue
            for position, value in enumerate(node.inputs):
                if is_float(value) and not value.is_initializer() and (position == 0 or node not in self._weighted):
                    yield value
            result = _after_clipping(node.outputs[0])
            alone = node.op_type in _TO_FLOAT and result is node.outputs[0]
            if not alone and not result.is_graph_output():
                yield result


def _after_clipping(value: ir.Value) -> ir.Value:
    """Return the output of the activation that is a result's only reader."""
    while not value.is_graph_output():
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in _CLIPPING or uses[0].idx != 0:
            break
        value = uses[0].node.outputs[0]
    return value


def _before_clipping(value: ir.Value) -> ir.Value:
    """Return the result that an activation clips, if nothing else reads it."""
    producer = value.producer()
    while producer is not None and producer.op_type in _CLIPPING:
        origin = producer.inputs[0]
        if origin is None or len(origin.uses()) != 1 or origin.is_graph_output():
            break
        value, producer = origin, origin.producer()
    return value
