"""Proof that a graph is a part of another one: what was shown of the whole then holds for the part.

A separate model is cut from the shared graph, so verifying it on every image again would show the same numbers once more. Instead
the two files are compared, by the digests of their nodes and weights: the part computes its outputs by the same operations, with
the same types, on the same weights. What the comparison of files cannot show, that ONNX Runtime computes the part as it computes
the whole, a few images do.
"""

from __future__ import annotations

from mtl_deploy.calibration.graph.digests import digests


class GraphParts:
    """The digests of a graph's nodes, weights and borders.

    Args:
        content: the ``.onnx`` file.
    """

    def __init__(self, content: bytes) -> None:
        self._model, self._held = digests(content)

    def holds(self, content: bytes) -> bool:
        """Return whether every node, weight, input and output of another ``.onnx`` file is one of this graph's.

        Nodes count as the same if their operator, attributes, inputs and outputs are; names of tensors are what links them.
        """
        model, held = digests(content)
        return model == self._model and all(self._held.get(place) == digest for place, digest in held.items())
