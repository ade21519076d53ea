"""Products that are not layers: the expectation at the end of a head, which is probabilities times fixed values, summed.

Age from 101 classes (DEX, Rothe et al. 2015), angles from bins (HopeNet, Ruiz et al. 2018), box edges (distribution focal loss,
Li et al. 2020), coordinates from heatmaps (integral regression, Sun et al. 2018): softmax, times a constant vector, summed. As
``Mul`` and ``ReduceSum`` it has no weighted node; as ``MatMul``, ``Gemm``, ``Einsum`` or a 1 by 1 ``Conv`` it looks like the head's
last layer, but the last layer is the one that gives the logits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_PRODUCTS = frozenset(("Conv", "Einsum", "Gemm", "MatMul"))
_PASSING = frozenset(
    (
        "Cast",
        "Concat",
        "Dropout",
        "Flatten",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    )
)
_LIKELY = 8  # strictly ascending values: learned values happen to ascend once in 20 000 times
_EVEN = 1e-3  # largest difference between steps, as a share of a step

Floats = npt.NDArray[np.floating]


def is_expectation(node: ir.Node) -> bool:
    """Whether a node multiplies probabilities by fixed values, which are not learned, and sums them.

    A graph does not say which constants are learned. Values count as fixed if, for each output, they ascend or descend in their
    order (8 or more of them), or if the distinct ones among them are evenly spaced (bins, coordinates of a grid); a learned matrix
    is neither.

    Args:
        node: any; constants are initializers.
    """
    if node.op_type not in _PRODUCTS or len(node.inputs) < 2:
        return False
    for data, factor in ((0, 1), (1, 0)):
        weight = _constant(node.inputs[factor])
        if weight is None or not _are_probabilities(node.inputs[data]):
            continue
        columns = _columns(node, weight, factor)
        return columns is not None and all(_is_fixed(column) for column in columns)
    return False


def _columns(node: ir.Node, weight: Floats, position: int) -> Floats | None:
    """Return ``(outputs, terms)``: what each output's terms are multiplied by; None if the product has another form."""
    if node.op_type == "Einsum":
        return weight[None] if weight.ndim == 1 else None
    if node.op_type == "Conv":
        pointwise = position == 1 and all(size == 1 for size in weight.shape[2:])
        return weight.reshape(weight.shape[:2]) if pointwise else None  # by group: of one term or more
    if weight.ndim == 1:
        return weight[None]
    if weight.ndim != 2:
        return None
    across = node.attributes.get("transB" if position else "transA") if node.op_type == "Gemm" else None
    rows = weight.T if across is not None and across.as_int() else weight
    return rows.T if position else rows


def _is_fixed(values: Floats) -> bool:
    if not np.isfinite(values).all() or len(values) < 2:
        return False
    steps = np.diff(values)
    if len(values) >= _LIKELY and (bool((steps > 0).all()) or bool((steps < 0).all())):
        return True
    between = np.diff(np.unique(values))
    if len(between) < 2:  # two values are always evenly spaced
        return len(between) == 1 and bool((values == np.rint(values)).all())
    return bool(between.max() - between.min() <= _EVEN * between.mean())


def _are_probabilities(value: ir.Value | None) -> bool:
    """Whether a tensor is a softmax, possibly reshaped, sliced, or times a constant number."""
    waiting, seen = [value], 0
    while waiting:
        value = waiting.pop()
        node = None if value is None else value.producer()
        seen += 1
        if node is None or seen > 64:
            return False
        if node.op_type == "Softmax" or _is_written_out(node):
            continue
        data = [one for one in node.inputs if one is not None and _constant(one) is None]
        scaled = (
            node.op_type in ("Mul", "Div")
            and len(data) == 1
            and data[0] is node.inputs[0]
            and _is_number(node.inputs[1])
        )
        if node.op_type == "Concat":
            waiting += data
        elif (node.op_type in _PASSING or scaled) and data:
            waiting.append(data[0])
        else:
            return False
    return True


def _is_written_out(node: ir.Node) -> bool:
    """Whether a node is the last one of a softmax in several nodes: exponentials over their sum, or Exp of a LogSoftmax."""
    if node.op_type == "Exp":
        return _producer(node.inputs[0]) == "LogSoftmax"
    if node.op_type != "Div" or _producer(node.inputs[0]) != "Exp" or _producer(node.inputs[1]) != "ReduceSum":
        return False
    sums = node.inputs[1]
    summed = sums.producer() if sums is not None else None
    return summed is not None and summed.inputs[0] is node.inputs[0]


def _producer(value: ir.Value | None) -> str:
    node = None if value is None else value.producer()
    return "" if node is None else node.op_type


def _constant(value: ir.Value | None) -> Floats | None:
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    array = value.const_value.numpy()
    return array if array.dtype.kind == "f" else None


def _is_number(value: ir.Value | None) -> bool:
    found = _constant(value)
    return found is not None and found.size == 1
