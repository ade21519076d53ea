"""Reading the nodes, types and weights of an ONNX file, on devices that have no onnx package.

Weights are not copied: a tensor is a view of the file until :meth:`OnnxTensor.values` is asked for. Field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import BundleError

from .wire import DEEPEST, Field, children, fields, integer, integers, string, text, texts

#: ONNX's element types by their numbers, under the names that numpy and ml_dtypes use.
ELEMENT_TYPES: Mapping[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4_e2m1fn", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2", 27: "float6_e2m3fn", 28: "float6_e3m2fn",
}  # fmt: skip

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 7, 8, 25
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_FUNCTION_NAME, _FUNCTION_NODE, _FUNCTION_DOMAIN = 1, 7, 10
_ATTRIBUTE_NAME, _ATTRIBUTE_TYPE = 1, 20
_ATTRIBUTE_F, _ATTRIBUTE_I, _ATTRIBUTE_S, _ATTRIBUTE_T, _ATTRIBUTE_G = 2, 3, 4, 5, 6
_ATTRIBUTE_FLOATS, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS, _ATTRIBUTE_GRAPHS = 7, 8, 9, 11
_VALUE_NAME, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE, _SHAPE_DIM = 1, 2, 1, 1, 2, 1
_DIM_VALUE, _DIM_PARAM = 1, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_INT32, _TENSOR_INT64, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 5, 7, 8, 9
_TENSOR_FLOAT, _TENSOR_DOUBLE, _TENSOR_UINT64, _TENSOR_LOCATION = 4, 10, 11, 14

_IN_INT32_DATA = {"int32", "int16", "int8", "uint16", "uint8", "bool", "float16"}
_ELSEWHERE = {"int64": _TENSOR_INT64, "float32": _TENSOR_FLOAT, "float64": _TENSOR_DOUBLE, "uint64": _TENSOR_UINT64}
_ELSEWHERE |= {"uint32": _TENSOR_UINT64}


@dataclass(frozen=True)
class OnnxValue:
    """What a graph says about one of its tensors."""

    name: str
    element_type: str | None  # None: no tensor, or a type that is not given
    shape: tuple[int | str | None, ...] | None  # a size, a symbol, or None: unknown; None as a whole: unknown rank


@dataclass(frozen=True)
class OnnxTensor:
    """A tensor whose values are in the file: a weight, or a constant."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    _encoded: memoryview = field(repr=False, compare=False)

    def values(self) -> np.ndarray[Any, Any] | None:
        """Return a copy of the values; None where numpy has no such type, or where they are in another file.

        Raises:
            BundleError: there are more or fewer values than the shape says.
        """
        parts = list(fields(self._encoded))
        if any(part.number == _TENSOR_LOCATION and integer(part) for part in parts):
            return None
        if self.element_type not in _IN_INT32_DATA and self.element_type not in _ELSEWHERE:
            return None
        kind = np.dtype(self.element_type).newbyteorder("<")
        try:
            raw = [part.value for part in parts if part.number == _TENSOR_RAW]
            values = np.frombuffer(raw[-1], kind) if raw else self._typed(parts, kind)
            return values.reshape(self.shape).astype(self.element_type)
        except (IndexError, ValueError, OverflowError) as error:
            raise BundleError(
                f"not an ONNX file: tensor {self.name!r}: {error}; copy it again, or export it"
            ) from error

    def _typed(self, parts: list[Field], kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if self.element_type in _IN_INT32_DATA:
            numbers = np.array(integers(parts, _TENSOR_INT32), np.int64)
            return (
                numbers.astype(np.uint16).view(np.float16) if self.element_type == "float16" else numbers.astype(kind)
            )
        number = _ELSEWHERE[self.element_type]
        if number in (_TENSOR_FLOAT, _TENSOR_DOUBLE):
            return np.frombuffer(b"".join(part.value for part in parts if part.number == number), kind)
        return np.array(integers(parts, number), np.int64).astype(kind)


@dataclass(frozen=True)
class OnnxNode:
    """One node, with the types around it as far as they are known."""

    name: str
    op_type: str
    domain: str  # empty: ONNX's own operators
    inputs: tuple[str, ...]  # an empty name: an input that is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, int | float | str | tuple[Any, ...] | OnnxTensor]  # without graphs
    input_types: tuple[str | None, ...]  # None: not given
    output_types: tuple[str | None, ...]
    graphs: tuple[OnnxGraph, ...] = ()  # the branches of an If, the body of a Loop

    def __str__(self) -> str:
        named = self.name or (self.outputs[0] if self.outputs else "")
        return f"node {named!r} ({self.op_type})"


@dataclass(frozen=True)
class OnnxGraph:
    """A graph, or one inside a node."""

    opsets: Mapping[str, int]  # by domain; empty: ONNX's own operators
    nodes: tuple[OnnxNode, ...]
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    values: tuple[OnnxValue, ...]  # those between, as far as the file lists them
    initializers: Mapping[str, OnnxTensor]
    functions: Mapping[tuple[str, str], tuple[OnnxNode, ...]] = field(default_factory=dict)  # by domain and name

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators; 0: it is not given."""
        return self.opsets.get("", 0)

    def walk(self) -> Iterator[OnnxGraph]:
        """Yield this graph and all graphs inside its nodes."""
        yield self
        for node in self.nodes:
            for inner in node.graphs:
                yield from inner.walk()

    def all_nodes(self) -> Iterator[OnnxNode]:
        """Yield the nodes of this graph and of all graphs inside."""
        for graph in self.walk():
            yield from graph.nodes


def read_graph(content: bytes) -> OnnxGraph:
    """Read an ONNX file's nodes, types and weights, with the graphs inside its nodes.

    Args:
        content: an ``.onnx`` file. Weights in other files are named, not read.

    Raises:
        BundleError: the bytes are no ONNX file.
    """
    try:
        parts = list(fields(memoryview(content)))
        opsets: dict[str, int] = {}
        for part in parts:
            if part.number == _MODEL_OPSET:
                domain = text(part.value, _OPSET_DOMAIN)
                versions = integers(fields(part.value), _OPSET_VERSION)
                opsets["" if domain == "ai.onnx" else domain] = versions[-1] if versions else 0
        functions = dict(_function(part.value, opsets) for part in parts if part.number == _MODEL_FUNCTION)
        graphs = [part.value for part in parts if part.number == _MODEL_GRAPH]
        if not graphs:
            raise ValueError("there is no graph in it")
        return _graph(graphs[-1], opsets, ChainMap(), functions)
    except (IndexError, ValueError, RecursionError) as error:
        raise BundleError(f"not an ONNX file: {error}; copy it again, or export it again") from error


def _graph(
    message: memoryview,
    opsets: Mapping[str, int],
    outer: ChainMap[str, str | None],
    functions: Mapping[tuple[str, str], tuple[OnnxNode, ...]],
    depth: int = DEEPEST,
) -> OnnxGraph:
    if not depth:
        raise ValueError(f"graphs nested more than {DEEPEST} deep")
    parts = list(fields(message))
    inputs, outputs, values = (
        tuple(read_value(part.value) for part in parts if part.number == number)
        for number in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO)
    )
    initializers = [_tensor(part.value) for part in parts if part.number == _GRAPH_INITIALIZER]
    types: ChainMap[str, str | None] = ChainMap({}, *outer.maps)  # no copy: there may be as many graphs as names
    types.update((tensor.name, tensor.element_type) for tensor in initializers)
    types.update((value.name, value.element_type) for value in (*values, *inputs, *outputs))
    nodes = tuple(_node(part.value, opsets, types, functions, depth) for part in parts if part.number == _GRAPH_NODE)
    weights = {tensor.name: tensor for tensor in initializers}
    return OnnxGraph(opsets, nodes, inputs, outputs, values, weights, functions)


def _function(message: memoryview, opsets: Mapping[str, int]) -> tuple[tuple[str, str], tuple[OnnxNode, ...]]:
    nodes = tuple(
        _node(part.value, opsets, ChainMap(), {}) for part in fields(message) if part.number == _FUNCTION_NODE
    )
    return (text(message, _FUNCTION_DOMAIN), text(message, _FUNCTION_NAME)), nodes


def _node(
    message: memoryview,
    opsets: Mapping[str, int],
    types: ChainMap[str, str | None],
    functions: Mapping[tuple[str, str], tuple[OnnxNode, ...]],
    depth: int = DEEPEST,
) -> OnnxNode:
    attributes: dict[str, Any] = {}
    graphs: list[OnnxGraph] = []
    for part in fields(message):
        if part.number == _NODE_ATTRIBUTE:
            inner = list(fields(part.value))
            graphs += (
                _graph(one.value, opsets, types, functions, depth - 1)
                for one in inner
                if one.number in (_ATTRIBUTE_G, _ATTRIBUTE_GRAPHS)
            )
            value = _attribute(inner)
            if value is not None:
                attributes[text(part.value, _ATTRIBUTE_NAME)] = value
    inputs, outputs = tuple(texts(message, _NODE_INPUT)), tuple(texts(message, _NODE_OUTPUT))
    domain = text(message, _NODE_DOMAIN)
    return OnnxNode(
        name=text(message, _NODE_NAME),
        op_type=text(message, _NODE_OP_TYPE),
        domain="" if domain == "ai.onnx" else domain,
        inputs=inputs,
        outputs=outputs,
        attributes=attributes,
        input_types=tuple(types.get(name) for name in inputs),
        output_types=tuple(types.get(name) for name in outputs),
        graphs=tuple(graphs),
    )


def _attribute(parts: list[Field]) -> int | float | str | tuple[Any, ...] | OnnxTensor | None:
    """Return an attribute's value; None: a kind that nothing here needs."""
    kind = (integers(parts, _ATTRIBUTE_TYPE) or [0])[-1]
    last = {part.number: part for part in parts}
    if kind == 1:
        return float(np.frombuffer(last[_ATTRIBUTE_F].value, "<f4")[0]) if _ATTRIBUTE_F in last else 0.0
    if kind == 2:
        return integer(last[_ATTRIBUTE_I]) if _ATTRIBUTE_I in last else 0
    if kind == 3:
        return string(last[_ATTRIBUTE_S]) if _ATTRIBUTE_S in last else ""
    if kind == 4 and _ATTRIBUTE_T in last:
        return _tensor(last[_ATTRIBUTE_T].value)
    if kind == 6:
        floats = b"".join(part.value for part in parts if part.number == _ATTRIBUTE_FLOATS)
        return tuple(np.frombuffer(floats, "<f4").tolist())
    if kind == 7:
        return tuple(integers(parts, _ATTRIBUTE_INTS))
    if kind == 8:
        return tuple(string(part) for part in parts if part.number == _ATTRIBUTE_STRINGS)
    return None


def read_value(message: memoryview) -> OnnxValue:
    """Return a tensor's name, type and shape as a graph's input, output or list of values gives them (ValueInfoProto)."""
    element_type, shape = None, None
    for kind in children(message, _VALUE_TYPE, _TYPE_TENSOR):
        for part in fields(kind):
            if part.number == _TENSOR_TYPE_ELEMENT:
                element_type = _element_type(integer(part))
            elif part.number == _TENSOR_TYPE_SHAPE:
                shape = tuple(_dimension(dim) for dim in children(part.value, _SHAPE_DIM))
    return OnnxValue(text(message, _VALUE_NAME), element_type, shape)


def _dimension(message: memoryview) -> int | str | None:
    for part in fields(message):
        if part.number == _DIM_VALUE:
            return integer(part)
        if part.number == _DIM_PARAM and len(part.value):
            return string(part)
    return None


def _tensor(message: memoryview) -> OnnxTensor:
    parts = [part for part in fields(message) if part.number in (_TENSOR_DIMS, _TENSOR_TYPE)]
    kind = _element_type((integers(parts, _TENSOR_TYPE) or [0])[-1])
    return OnnxTensor(text(message, _TENSOR_NAME), kind or "", tuple(integers(parts, _TENSOR_DIMS)), message)


def _element_type(number: int) -> str | None:
    return ELEMENT_TYPES.get(number, f"type {number}") if number else None
