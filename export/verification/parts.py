"""Proof that a graph is a part of another one: what was shown of the whole then holds for the part.

A separate model is cut from the shared graph, so verifying it on every image again would show the same numbers once more. Instead
the two files are compared, by the digests of their nodes and weights: the part computes its outputs by the same operations, with
the same types, on the same weights. What the comparison of files cannot show, that ONNX Runtime computes the part as it computes
the whole, a few images do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


class GraphParts:
    """The digests of a graph's nodes, weights and borders.

    Args:
        content: the ``.onnx`` file.
    """

    def __init__(self, content: bytes) -> None:
        self._model, self._held = _digests(content)

    def holds(self, content: bytes) -> bool:
        """Return whether every node, weight, input and output of another ``.onnx`` file is one of this graph's.

        Nodes count as the same if their operator, attributes, inputs and outputs are; names of tensors are what links them.
        """
        model, held = _digests(content)
        return model == self._model and all(self._held.get(place) == digest for place, digest in held.items())


def _digests(content: bytes) -> tuple[bytes, dict[tuple[str, ...], bytes]]:
    """Return the digest of what holds for the whole graph, and those of its parts by what they define."""
    import onnx

    model = onnx.load_from_string(content)
    graph = model.graph
    held: dict[tuple[str, ...], bytes] = {}
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
