"""Nodes that a kind adds behind a network's output, one after the other, each named after its step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.bundle.tasks import Task

if TYPE_CHECKING:
    import onnx_ir as ir

Constant = Callable[[str, "np.ndarray[Any, Any]"], "ir.Value"]


class Chain:
    """The nodes of one task.

    TensorRT reads the forms that the kinds use; what is new belongs into ``export/targets/operators.py`` too.

    Args:
        task: with its size.
        raw: what the first node reads.
        constant: makes an initializer from a name and values.

    Attributes:
        last: output of the last node, or ``raw``.
        nodes: those added so far, in order.
    """

    def __init__(self, task: Task, raw: ir.Value, constant: Constant) -> None:
        self._name, self._constant = task.name, constant
        self.last = raw
        self.nodes: list[ir.Node] = []

    def constant(self, word: str, content: object) -> ir.Value:
        """Return an initializer named after the task and a word; float32, unless the content is int64."""
        return self._constant(f"decode.{self._name}.{word}", np.asarray(content))

    def add(self, op_type: str, word: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any) -> ir.Value:
        """Add a node and return its first output, which is then the last.

        Args:
            op_type: of ONNX's own operators.
            word: names the step; each is used once.
            inputs: of the node; None leaves an optional one out.
            outputs: how many it has; the others are at ``chain.nodes[-1].outputs``.
            attributes: of the node.
        """
        import onnx_ir as ir

        node = ir.node(op_type, inputs, attributes, num_outputs=outputs, name=f"decode/{self._name}/{word}")
        self.nodes.append(node)
        self.last = node.outputs[0]
        return self.last

    def scaled(self, task: Task) -> None:
        """Add a task's scale and offset, as far as they change anything."""
        for op_type, word, number, neutral in (("Mul", "scale", task.scale, 1.0), ("Add", "offset", task.offset, 0.0)):
            if number != neutral:
                self.add(op_type, word, self.last, self.constant(word, float(number)))
