"""Checking a graph before any library reads it: its size, and that it holds all its weights itself.

ONNX lets a tensor lie in another file, by a path from the current folder: such a graph passes its SHA-256 and computes with
weights that nobody checked. A bundle's graphs are single files, so every tensor in them is checked, also in graphs inside nodes and
in functions. Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mtl_deploy.runtime.errors import BundleError

from .wire import DEEPEST, LENGTH, Field, fields, read_varint, text

MOST_FIELDS = 1_000_000  # a network of 2,000 operators has 50,000
MOST_BYTES = 2 << 30  # protobuf reads no more

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _FUNCTION, _TRAINING, _TENSOR, _SPARSE = range(8)
_INSIDE: Mapping[int, Mapping[int, int]] = {  # kind of message: field number: what lies in it
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
_TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_NODE_NAME, _NODE_OP_TYPE = 3, 4
_ENGINE = "EPContext"  # com.microsoft: an engine of an execution provider, in the node or in a file that it names
_ORT_FORMAT = b"ORTM"  # at byte 4 of ONNX Runtime's own format, which it accepts whatever the file is called


def check_graph(content: bytes, where: str, *, beside: bool = False) -> None:
    """Check that an ONNX file is small enough to be searched, and refers to no other file.

    Args:
        content: an ``.onnx`` file.
        where: how errors call it.
        beside: tensors may lie in other files; the caller then checks where, and that no library looks for them itself.

    Raises:
        BundleError: a tensor lies in another file, a node holds an engine, graphs are nested more than 16 deep, there are more
            than 1,000,000 fields or 2 GiB, or the bytes are no ONNX file.
    """
    if content[4:8] == _ORT_FORMAT:
        raise BundleError(f"{where}: in ONNX Runtime's own format, which is not checked; use the .onnx file")
    if len(content) > MOST_BYTES:
        raise BundleError(f"{where}: {len(content)} bytes; a graph has {MOST_BYTES} at most")
    try:
        problem = _problem(memoryview(content), beside=beside)
    except (IndexError, ValueError) as error:
        raise BundleError(f"{where}: not an ONNX file: {error}; copy it again, or export it again") from error
    if problem:
        raise BundleError(f"{where}: {problem}; export the network again, into one file")


def _problem(content: memoryview, *, beside: bool) -> str:
    """Return what is wrong with a model, empty where nothing is."""
    rest = [(content, _MODEL, 0)]
    seen = 0
    while rest:
        message, kind, depth = rest.pop()
        for field in fields(message):
            seen += 1
            if seen > MOST_FIELDS:
                raise ValueError(f"more than {MOST_FIELDS} fields")
            if kind == _TENSOR and field.number in (_TENSOR_EXTERNAL, _TENSOR_LOCATION):
                if not beside and (problem := _elsewhere(message, field)):
                    return problem
            elif kind == _NODE and field.number == _NODE_OP_TYPE and field.value == _ENGINE.encode():
                return f"node {_shown(message, _NODE_NAME)} holds an engine ({_ENGINE})"
            inner = _INSIDE.get(kind, {}).get(field.number) if field.wire_type == LENGTH else None
            if inner is not None:
                deeper = depth + (inner == _GRAPH)
                if deeper > DEEPEST:
                    raise ValueError(f"graphs nested more than {DEEPEST} deep")
                rest.append((field.value, inner, deeper))
    return ""


def _elsewhere(tensor: memoryview, field: Field) -> str:
    if field.number == _TENSOR_LOCATION and field.wire_type != LENGTH and not read_varint(field.value, 0)[0]:
        return ""  # "here", stated explicitly
    entries = [entry.value for entry in fields(tensor) if entry.number == _TENSOR_EXTERNAL]
    places = [_shown(entry, _ENTRY_VALUE) for entry in entries if text(entry, _ENTRY_KEY) == "location"]
    return (
        f"tensor {_shown(tensor, _TENSOR_NAME)} lies in another file, {places[0] if places else 'which is not named'}"
    )


def _shown(message: memoryview, number: int) -> str:
    return repr(next(_raw(message, number), b"").decode("utf-8", "replace")[:80])


def _raw(message: memoryview, number: int) -> Iterator[bytes]:
    return (bytes(field.value) for field in fields(message) if field.number == number)
