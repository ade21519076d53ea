"""The operations of a graph that join branches: where rounding adds up from block to block."""

from __future__ import annotations

import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float
from mtl_deploy.runtime.onnx_format.weighted import is_weighted

from .plan import TypePlan


def joining(plan: TypePlan) -> list[ir.Node]:
    """Find the light operations that would be FP16 and join branches, with those between them and the layers around.

    The sums of residual blocks and the products of gates: what is rounded there is read by the next one and rounded again, and each
    costs no multiply-adds. An activation between two layers is none: it gives what is FP16 already.

    Args:
        plan: of a graph whose types are FP32 still.

    Returns:
        the nodes, in the graph's order.
    """
    light = dict.fromkeys(node for node in plan.half if not is_weighted(node.op_type))
    waiting = [node for node in light if sum(_is_computed(value) for value in node.inputs) > 1]
    found: set[ir.Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [other for other in (*node.predecessors(), *node.successors()) if other in light]
    return [node for node in light if node in found]


def _is_computed(value: ir.Value | None) -> bool:
    return is_float(value) and not value.is_initializer()
