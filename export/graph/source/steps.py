"""Nodes of the border, one after the other, each named after its step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.export.graph.constants import constant, free_name
from mtl_deploy.runtime.onnx_format.border import BORDER

if TYPE_CHECKING:
    import onnx_ir as ir


class Steps:
    """Nodes that are to be put in front of a graph.

    Args:
        model: gets their constants.

    Attributes:
        nodes: those added so far, in order.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self.nodes: list[ir.Node] = []

    def constant(self, word: str, content: object) -> ir.Value:
        """Return an initializer; float32, unless the content is of integers."""
        array = np.asarray(content)
        return constant(
            self._model, f"{BORDER}{word}", array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        )

    def add(self, op_type: str, word: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Add a node and return its output.

        Args:
            op_type: of ONNX's own operators.
            word: names the step; each is used once.
            inputs: of the node; None leaves an optional one out.
            attributes: of the node.
        """
        import onnx_ir as ir

        node = ir.node(op_type, inputs, attributes, name=f"{BORDER}{word}")
        node.outputs[0].name = free_name(self._model, f"{BORDER}{word}_out")
        self.nodes.append(node)
        return node.outputs[0]

    def cut(self, word: str, value: ir.Value, axis: int, first: int, stop: int) -> ir.Value:
        """Add a ``Slice`` of one axis."""
        ends = (("first", first), ("stop", stop), ("axis", axis))
        return self.add("Slice", word, value, *(self.constant(f"{word}/{name}", [end]) for name, end in ends))

    def shaped(self, word: str, value: ir.Value, *sides: int) -> ir.Value:
        """Add a ``Reshape`` of all axes but the batch's."""
        return self.add("Reshape", word, value, self.constant(f"{word}/shape", [0, *sides]))

    def whole(self, word: str, value: ir.Value) -> ir.Value:
        """Round down what is not negative in a frame, and clip to 8 bits."""
        floor = self.add("Floor", f"{word}/floor", value)
        low, high = self.constant(f"{word}/low", 0.0), self.constant(f"{word}/high", 255.0)
        return self.add("Clip", f"{word}/clip", floor, low, high)
