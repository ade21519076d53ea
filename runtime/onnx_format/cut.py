"""Cutting an ONNX file down to some of its outputs, on devices that have no onnx package.

ONNX Runtime computes every output of a graph, whichever it is asked for (its ``only_execute_path_to_fetches`` changes nothing in
releases), and keeps nodes that no output needs. So a graph for fewer tasks is made before it is loaded. Only the few fields of
the format that this needs are read, by their numbers in https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; everything
else is copied as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mtl_deploy.runtime.errors import BundleError, TaskError

from .wire import DEEPEST, LENGTH, Field, encoded_varint, fields, text, texts

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_VALUE_NAME, _TENSOR_NAME = 1, 8


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
                parts += [encoded_varint(_MODEL_GRAPH << 3 | LENGTH), encoded_varint(len(graph)), graph]
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
    for position in reversed(range(len(parts))):  # ONNX requires that a node comes after those that it reads from
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
