"""Cutting an ONNX file down to some of its outputs, and checking that it is whole, on devices that have no onnx package.

ONNX Runtime computes every output of a graph whatever it is asked for (its ``only_execute_path_to_fetches`` changes nothing in
releases), and keeps nodes that no output needs. So a graph for fewer tasks is made before it is loaded. Only the few fields of
the format that this takes are read, by their numbers in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; everything
else is copied as it stands.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mtl_deploy.runtime.errors import BundleError, TaskError

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VALUE_NAME, _TENSOR_NAME = 1, 8
_MOST_NUMBER, _MOST_LENGTH = (1 << 29) - 1, (1 << 31) - 1  # of fields, https://protobuf.dev/programming-guides/proto3/
_VARINT_BYTES, _KEY_BYTES = 10, 5
DEEPEST = 16  # graphs inside graphs; protobuf's own readers end at about 33

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types, https://protobuf.dev/programming-guides/encoding


@dataclass(frozen=True)
class Field:
    """One field of a message: its number and wire type, its whole encoding, and what it holds."""

    number: int
    wire_type: int
    encoded: memoryview
    value: memoryview


def cut(content: bytes, outputs: Collection[str]) -> bytes:
    """Return an ONNX file that computes only the named outputs, with the nodes and weights that they need.

    Args:
        content: an ``.onnx`` file.
        outputs: names of the graph's outputs to keep, tasks in a deployed graph.

    Raises:
        TaskError: the graph has no such output.
        BundleError: the bytes are no protocol buffer message.
    """
    try:
        model = list(fields(memoryview(content)))
        parts: list[bytes | memoryview] = []
        for field in model:
            if field.number == _MODEL_GRAPH:
                graph = _cut_graph(field.value, outputs)
                parts += [_varint(_MODEL_GRAPH << 3 | _LENGTH), _varint(len(graph)), graph]
            else:
                parts.append(field.encoded)
    except TaskError:
        raise
    except (IndexError, ValueError) as error:
        raise BundleError(f"not an ONNX file: {error}; copy it again, or export it again") from error
    return b"".join(parts)


def _cut_graph(graph: memoryview, outputs: Collection[str]) -> bytes:
    parts = list(fields(graph))
    has = [text(field.value, _VALUE_NAME) for field in parts if field.number == _GRAPH_OUTPUT]
    if missing := [name for name in outputs if name not in has]:
        raise TaskError(f"no task is called {missing[0]!r}; the tasks are {', '.join(has)}")
    needed = set(outputs)
    nodes: set[int] = set()
    for position in reversed(range(len(parts))):  # ONNX demands that a node stand behind those that it reads from
        field = parts[position]
        if field.number == _GRAPH_NODE and not needed.isdisjoint(texts(field.value, _NODE_OUTPUT)):
            nodes.add(position)
            needed.update(_reads(field.value, DEEPEST))
    kept = [field for position, field in enumerate(parts) if _is_kept(field, position, nodes, needed, outputs)]
    return b"".join(field.encoded for field in kept)


def _is_kept(field: Field, position: int, nodes: set[int], needed: set[str], outputs: Collection[str]) -> bool:
    if field.number == _GRAPH_NODE:
        return position in nodes
    if field.number == _GRAPH_OUTPUT:
        return text(field.value, _VALUE_NAME) in outputs
    if field.number == _GRAPH_INITIALIZER:
        return text(field.value, _TENSOR_NAME) in needed
    if field.number == _GRAPH_VALUE_INFO:
        return text(field.value, _VALUE_NAME) in needed
    return True


def _reads(node: memoryview, depth: int) -> Iterator[str]:
    """Yield the names that a node reads, and all that graphs inside it read (the branches of an If)."""
    if not depth:
        raise ValueError(f"graphs nested more than {DEEPEST} deep")
    yield from texts(node, _NODE_INPUT)
    for attribute in fields(node):
        if attribute.number != _NODE_ATTRIBUTE:
            continue
        for inner in fields(attribute.value):
            if inner.number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                for field in fields(inner.value):
                    if field.number == _GRAPH_NODE:
                        yield from _reads(field.value, depth - 1)
                    elif field.number == _GRAPH_OUTPUT:
                        yield text(field.value, _VALUE_NAME)


def texts(message: memoryview, number: int) -> Iterator[str]:
    """Yield the strings that a message holds under a field number."""
    return (str(field.value, "utf-8") for field in fields(message) if field.number == number)


def text(message: memoryview, number: int) -> str:
    """Return the first string that a message holds under a field number; empty: there is none."""
    return next(texts(message, number), "")


def fields(message: memoryview) -> Iterator[Field]:
    """Yield a message's fields as they stand.

    What protobuf's own readers would understand in another way (a key or a length of more bits than they keep) is refused, so that
    nothing is hidden from who looks for it here.

    Raises:
        IndexError, ValueError: the bytes are no protocol buffer message.
    """
    position = 0
    while position < len(message):
        start = position
        key, position = read_varint(message, position)
        wire_type, value = key & 7, position
        if position - start > _KEY_BYTES or not 0 < key >> 3 <= _MOST_NUMBER:
            raise ValueError(f"a field's key at byte {start} that is none")
        if wire_type == _VARINT:
            _, position = read_varint(message, position)
        elif wire_type == _LENGTH:
            length, value = read_varint(message, position)
            if length > _MOST_LENGTH:
                raise ValueError(f"a field at byte {start} reaches beyond its message")
            position = value + length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} at byte {start}")
        if position > len(message):
            raise ValueError(f"a field at byte {start} reaches beyond its message")
        yield Field(key >> 3, wire_type, message[start:position], message[value:position])


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the number that is encoded at a position, and the position behind it.

    Raises:
        IndexError, ValueError: the message ends before, or the number has more than ten bytes, which 64 bits never take.
    """
    value = 0
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than {_VARINT_BYTES} bytes at byte {position - _VARINT_BYTES}")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
