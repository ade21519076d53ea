"""The borders of an ONNX file: its inputs, its outputs and its metadata, without reading what lies between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtl_deploy.runtime.errors import BundleError

from .graph import OnnxValue, read_value
from .wire import fields, text

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_TENSOR_NAME, _ENTRY_KEY, _ENTRY_VALUE = 8, 1, 2


@dataclass(frozen=True)
class Borders:
    """What a graph takes and gives.

    Attributes:
        inputs: without weights, which old files list among the inputs.
        outputs: in the file's order.
        metadata: its own, by key.
    """

    inputs: tuple[OnnxValue, ...]
    outputs: tuple[OnnxValue, ...]
    metadata: Mapping[str, str]


def read_borders(content: bytes, where: str) -> Borders:
    """Read an ONNX file's inputs, outputs and metadata.

    Args:
        content: an ``.onnx`` file.
        where: how errors call it.

    Raises:
        BundleError: the bytes are no ONNX file, or its metadata is no text.
    """
    try:
        parts = list(fields(memoryview(content)))
        graphs = [part.value for part in parts if part.number == _MODEL_GRAPH]
        if not graphs:
            raise ValueError("there is no graph in it")
        inside = list(fields(graphs[-1]))
        weights = {text(part.value, _TENSOR_NAME) for part in inside if part.number == _GRAPH_INITIALIZER}
        inputs, outputs = (
            tuple(read_value(part.value) for part in inside if part.number == number)
            for number in (_GRAPH_INPUT, _GRAPH_OUTPUT)
        )
        metadata = {
            text(part.value, _ENTRY_KEY): text(part.value, _ENTRY_VALUE)
            for part in parts
            if part.number == _MODEL_METADATA
        }
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: its metadata is not UTF-8 text ({error.reason}); export it again") from error
    except (IndexError, ValueError) as error:
        raise BundleError(f"{where}: not an ONNX file: {error}; copy it again, or export it again") from error
    return Borders(tuple(value for value in inputs if value.name not in weights), outputs, metadata)
