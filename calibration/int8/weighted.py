"""Which layers with weights can compute in INT8, and which are the last one of a head."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mtl_deploy.calibration.graph.expectation import is_expectation
from mtl_deploy.runtime.onnx_format.weighted import WEIGHTED, is_weighted

INT8 = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""Those of :data:`~mtl_deploy.runtime.onnx_format.weighted.WEIGHTED` that are quantized; the others stay in higher precision."""


def obstacle(node: ir.Node, *, integer_bias: bool) -> str | None:
    """Return why a weighted node cannot compute in INT8; None if it can.

    Args:
        node: one whose operator has weights.
        integer_bias: whether ONNX Runtime runs it, whose kernels read a bias in INT32 and which has none for transposed
            convolutions.
    """
    if node.op_type not in INT8:
        return f"{node.op_type} is not quantized"
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or not weight.is_initializer():
        return "its second operand is not a constant weight"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype}, not float32"
    if is_expectation(node):
        return "it is a fixed expectation, probabilities times constant values"
    values = weight.const_value.numpy()
    if not np.isfinite(values).all():
        return "its weight is NaN or infinite"
    if node.op_type == "MatMul" and values.ndim != 2:
        return "its weight is not a matrix"
    if node.op_type == "Gemm" and _number(node, "transA", 0) != 0:
        return "it transposes its data"
    if node.op_type == "ConvTranspose" and (integer_bias or _number(node, "group", 1) != 1):
        return (
            "there is no integer kernel for it"
            if integer_bias
            else "its grouped weights cannot have one scale per channel"
        )
    return _bias_obstacle(node) if integer_bias else None


def output_axis(node: ir.Node) -> int:
    """Return the axis of a weighted node's weight that its output channels lie along."""
    if node.op_type == "Gemm":
        return 0 if _number(node, "transB", 0) else 1
    return 0 if node.op_type == "Conv" else 1


def bias_of(node: ir.Node) -> ir.Value | None:
    """Return a weighted node's bias; None if it has none."""
    position = WEIGHTED[node.op_type].bias
    return None if position is None or position >= len(node.inputs) else node.inputs[position]


def last_of_heads(graph: ir.Graph) -> set[ir.Node]:
    """Return the weighted nodes that no other weighted node follows.

    A fixed expectation is not one of them, see :mod:`mtl_deploy.calibration.graph.expectation`.
    """
    layers = {node for node in graph if is_weighted(node.op_type) and not is_expectation(node)}
    leads_on: set[ir.Node] = set()
    last: set[ir.Node] = set()
    for node in reversed(graph):
        if any(follower in leads_on or follower in layers for follower in node.successors()):
            leads_on.add(node)
        elif node in layers:
            last.add(node)
    return last


def _bias_obstacle(node: ir.Node) -> str | None:
    if _number(node, "alpha", 1.0) != 1 or _number(node, "beta", 1.0) != 1:
        return "it scales its product or its bias"
    bias = bias_of(node)
    if bias is None:
        return None
    if bias.const_value is None or not bias.is_initializer():
        return "its bias is not constant"
    weight = node.inputs[1]
    assert weight is not None  # an obstacle before this one
    assert weight.const_value is not None
    channels = weight.const_value.shape[output_axis(node)]
    values = bias.const_value.numpy()
    if values.shape != (channels,) or not np.isfinite(values).all():
        return "its bias is not one finite number per channel"
    return None


def _number(node: ir.Node, name: str, default: float) -> float:
    found = node.attributes.get(name)
    return default if found is None else float(found.value)
