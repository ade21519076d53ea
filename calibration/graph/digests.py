"""The digests of a graph's nodes, weights and borders: two graphs that have one in common compute the same there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

Held = dict[tuple[str, ...], bytes]
"""Digests by what they define: ``("node", *outputs)``, and ``in``, ``out``, ``weight`` and ``sparse`` with a name."""


def digests(content: bytes) -> tuple[bytes, Held]:
    """Return the digest of what holds for a whole graph (opsets, functions, format), and those of its parts.

    Args:
        content: an ``.onnx`` file.
    """
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    held: Held = {}
    for kind, parts in (("in", graph.input), ("out", graph.output), ("weight", graph.initializer)):
        held.update(((kind, part.name), _digest([part])) for part in parts)
    held.update((("node", *node.output), _digest([node])) for node in graph.node)
    held.update((("sparse", part.values.name), _digest([part])) for part in graph.sparse_initializer)
    return _whole(model), held


def _whole(model: onnx.ModelProto) -> bytes:
    opsets = sorted(model.opset_import, key=lambda each: each.domain)
    functions = sorted(model.functions, key=lambda each: (each.domain, each.name))
    return _digest([*opsets, *functions]) + model.ir_version.to_bytes(8, "little")


def _digest(parts: Iterable[Any]) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.SerializeToString(deterministic=True))
    return found.digest()
