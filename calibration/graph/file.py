"""A graph's ``.onnx`` file, without a copy of its weights in protocol buffers on the way.

The bytes are those that the protocol buffers' own serializer writes: fields in the order of their numbers, each as a tag, a length
and its content (https://protobuf.dev/programming-guides/encoding). Weights go from their arrays into the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.errors import TraceError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_LIMIT = 2**31 - 1  # bytes; larger graphs need external data, which a single .onnx file cannot hold
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # fields of ModelProto, GraphProto and TensorProto
_PLAIN = ("FLOAT", "FLOAT16", "DOUBLE", "INT64", "INT32", "UINT8", "INT8", "BOOL")  # numpy holds them as files do


def to_file(model: ir.Model) -> bytes:
    """Return the ``.onnx`` file of a graph: the same bytes at each call.

    Raises:
        TraceError: the graph is larger than the 2 GiB that one ONNX file can hold.
    """
    import onnx

    proto = without_weights(model)
    graph = proto.graph
    before, after = onnx.GraphProto(), onnx.GraphProto()
    before.CopyFrom(graph)
    after.CopyFrom(graph)
    for name in ("node", "name"):
        after.ClearField(name)
    for field, _ in graph.ListFields():
        if field.number > _INITIALIZER:
            before.ClearField(field.name)
    inner: list[bytes | memoryview] = [_bytes(before)]
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            inner += _weight(str(value.name), value.const_value)
    inner.append(_bytes(after))
    size = sum(map(len, inner))
    head, tail = onnx.ModelProto(), onnx.ModelProto()
    head.CopyFrom(proto)
    tail.CopyFrom(proto)
    for field, _ in proto.ListFields():
        (head if field.number >= _GRAPH else tail).ClearField(field.name)
    tail.ClearField("graph")
    pieces = [_bytes(head), _tag(_GRAPH, size), *inner, _bytes(tail)]
    if (whole := sum(map(len, pieces))) > _LIMIT:
        raise TraceError(f"the graph takes {whole / 2**30:.1f} GiB; one ONNX file holds 2 GiB at most")
    return b"".join(pieces)


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """Return a graph as protocol buffers that hold everything but its weights."""
    import onnx_ir as ir

    with _weights_away(model):
        proto = ir.to_proto(model)
    del proto.graph.initializer[:]
    return proto


@contextmanager
def _weights_away(model: ir.Model) -> Iterator[None]:
    import onnx_ir as ir

    held = [(value, value.const_value) for value in model.graph.initializers.values()]
    try:
        for value, tensor in held:
            value.const_value = None if tensor is None else ir.tensor(np.zeros(0, np.float32), name=value.name)
        yield
    finally:
        for value, tensor in held:
            value.const_value = tensor


def _weight(name: str, tensor: ir.TensorProtocol) -> list[bytes | memoryview]:
    """Return the pieces of one entry of the graph's list of weights."""
    import onnx
    import onnx_ir as ir

    tensor.name = name
    proto = onnx.TensorProto()
    if (
        not isinstance(tensor, ir.Tensor)
        or tensor.dtype.name not in _PLAIN
        or tensor.doc_string
        or tensor.metadata_props
    ):
        ir.serde.serialize_tensor_into(proto, tensor)
        whole = _bytes(proto)
        return [_tag(_INITIALIZER, len(whole)), whole]
    array = np.ascontiguousarray(tensor.numpy())
    if sys.byteorder != "little":
        array = array.astype(array.dtype.newbyteorder("<"))
    data = array.reshape(-1).view(np.uint8).data
    proto.dims.extend(tensor.shape.numpy())
    proto.data_type, proto.name = tensor.dtype.value, name
    start = _bytes(proto) + _tag(_RAW_DATA, len(data))
    return [_tag(_INITIALIZER, len(start) + len(data)) + start, data]


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def _tag(field: int, length: int) -> bytes:
    """Return what stands before a field's content: its number, that it has a length, and the length."""
    found = bytearray([field << 3 | 2])
    while length > 0x7F:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    found.append(length)
    return bytes(found)
