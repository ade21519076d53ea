"""``HardSigmoid`` and ``HardSwish`` on integers, with ONNX's operators alone and without an error of their own.

A hard sigmoid is a straight line between two clips, ``min(max(alpha * x + 1/2, 0), 1)``, and a quantized tensor is a straight line
of its integers that is clipped at both ends. So the scale of ``x`` is chosen such that its smallest integer is where the sigmoid
becomes 0, and that it becomes 1 at an integer ``n``: with ``scale = 1 / (alpha * n)`` and ``zero point = n / 2``, the sigmoid of
``x`` is ``min(q, n) / n``, for the same integers ``q``. That is a Clip of the integers, which are then read with another scale.
What is clipped of ``x`` at the low end lies where the sigmoid is 0, and ``x * sigmoid(x)`` too.

``HardSwish`` is the product of both readings, which ONNX Runtime runs as one ``QLinearMul``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mtl_deploy.calibration.observe.ranges import Range

_LARGEST = 254  # the largest even number of U8
_COARSER = 1.25  # the most by which the step of a HardSwish's input may grow

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class HardActivation:
    """The nodes that read a tensor, all of one operator, and how the tensor is quantized for them.

    Attributes:
        nodes: those that read the tensor.
        top: the integer from which on the hard sigmoid is 1; an even number.
        alpha: the slope of the hard sigmoid.
    """

    nodes: tuple[ir.Node, ...]
    top: int
    alpha: float

    @property
    def ends(self) -> tuple[Array, Array]:
        """The tensor's scale, FP32, and its zero point, U8."""
        return np.array(1 / (self.alpha * self.top), np.float32), np.array(self.top // 2, np.uint8)

    def write(self, dequantized: ir.Value, constant: Callable[[str, Array], ir.Value]) -> None:
        """Replace the nodes, which read a tensor after its Q/DQ.

        Args:
            dequantized: the output of the tensor's DequantizeLinear.
            constant: makes an initializer of a name and an array.
        """
        reader = dequantized.producer()
        assert reader is not None  # its DequantizeLinear
        assert reader.graph is not None
        integers = reader.inputs[0]
        assert integers is not None
        name = str(integers.name).removesuffix("/q")
        clipped = ir.Value(name=f"{name}/clipped", type=integers.type, shape=integers.shape)
        gate = ir.Value(name=f"{name}/gate", type=dequantized.type, shape=dequantized.shape)
        limit = constant(f"{name}/top", np.array(self.top, np.uint8))
        ends = (
            constant(f"{name}/gate/scale", np.array(1 / self.top, np.float32)),
            constant(f"{name}/gate/zero", np.array(0, np.uint8)),
        )
        nodes = [
            ir.node("Clip", [integers, None, limit], name=f"{name}/clip", outputs=[clipped]),
            ir.node("DequantizeLinear", [clipped, *ends], name=f"{name}/gate/dequantize", outputs=[gate]),
        ]
        reader.graph.insert_after(reader, nodes)
        for node in self.nodes:
            self._write(node, dequantized, gate)

    def _write(self, node: ir.Node, dequantized: ir.Value, gate: ir.Value) -> None:
        graph, result = node.graph, node.outputs[0]
        assert graph is not None
        if node.op_type == "HardSwish":
            product = ir.Value(name=result.name, type=result.type, shape=result.shape)
            graph.insert_before(node, ir.node("Mul", [dequantized, gate], name=node.name, outputs=[product]))
            result.replace_all_uses_with(product)
        else:  # the gate has been quantized already: what reads its Q/DQ reads it instead
            for use in list(result.uses()):
                if use.node.op_type == "QuantizeLinear":
                    for again in list(use.node.outputs[0].uses()):
                        again.node.outputs[0].replace_all_uses_with(gate)
            result.replace_all_uses_with(gate)
        graph.remove(node, safe=True)


def hard_activation(value: ir.Value, chosen: Range) -> HardActivation | None:
    """Return how a tensor that hard activations read is quantized for them; None if another node reads it, or it is better left.

    Args:
        value: a tensor that gets Q/DQ.
        chosen: its range.
    """
    readers = tuple(use.node for use in value.uses())
    if value.is_graph_output() or {node.op_type for node in readers} not in ({"HardSigmoid"}, {"HardSwish"}):
        return None
    slopes = {_slope(node) for node in readers}
    if len(slopes) != 1 or (alpha := slopes.pop()) is None:
        return None
    if readers[0].op_type == "HardSigmoid":
        return HardActivation(readers, _LARGEST, alpha)
    top = min(int(255 / (alpha * chosen.high + 0.5)), _LARGEST) // 2 * 2
    if not top or 1 / (alpha * top) > _COARSER * chosen.asymmetric()[0]:
        return None
    return HardActivation(readers, top, alpha)


def _slope(node: ir.Node) -> float | None:
    """Return the slope of a hard sigmoid that is 1/2 at zero; None of another one."""
    if node.op_type == "HardSwish":
        return 1 / 6
    alpha, beta = (node.attributes.get(name) for name in ("alpha", "beta"))
    if beta is not None and abs(beta.as_float() - 0.5) > 1e-6:
        return None
    slope = 0.2 if alpha is None else alpha.as_float()
    return slope if slope > 0 else None
