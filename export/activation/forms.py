"""Hand-written sigmoid, softmax and log-softmax, recognised by their nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import onnx_ir as ir

Handwritten = Literal["sigmoid", "softmax", "log_softmax"]

_NEVER_NEGATIVE = frozenset(("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus", "Sqrt"))


def handwritten(node: ir.Node, axis: int | None) -> Handwritten | None:
    """Return the activation that a node is the last operation of; None: no known one.

    Recognised are a sigmoid as ``1 / (1 + exp(-x))``, ``exp(x) / (1 + exp(x))`` or ``(1 + tanh(x)) / 2``; a softmax as something
    that is never negative divided by its own sum over the classes; a log-softmax as ``x - logsumexp(x)``.

    Args:
        node: whose output holds the values.
        axis: of the classes; None if there is only one value.
    """
    if _is_logistic(node) or _is_shifted_tanh(node):
        return "sigmoid"
    if axis is None:
        return None
    for part, divisor in _quotients(node):
        source = part.producer()
        positive = source is not None and (source.op_type in _NEVER_NEGATIVE or _is_square(source) or _is_elu(source))
        if positive and _sums(divisor, part, axis):
            return "softmax"
    if node.op_type == "Sub":
        data, norm = node.inputs
        if data is not None and norm is not None and _log_sums(norm, data, axis):
            return "log_softmax"
    return None


def number(value: ir.Value | None) -> float | None:
    """Return a constant of one element; None for anything else."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().ravel()[0])


def affine(node: ir.Node) -> tuple[ir.Value, float, float] | None:
    """Return data, factor and addend of a node that multiplies by a number, adds one, or subtracts from one; else None."""
    if node.op_type == "Neg" and node.inputs[0] is not None:
        return node.inputs[0], -1.0, 0.0
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return None
    first, second = node.inputs
    left, right = number(first), number(second)
    if right is not None and first is not None:
        if node.op_type == "Div":
            return (first, 1 / right, 0.0) if right else None
        return {"Add": (first, 1.0, right), "Sub": (first, 1.0, -right), "Mul": (first, right, 0.0)}[node.op_type]
    if left is not None and second is not None and node.op_type != "Div":
        return {"Add": (second, 1.0, left), "Sub": (second, -1.0, left), "Mul": (second, left, 0.0)}[node.op_type]
    return None


def _quotients(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Yield dividend and divisor of a division, or of a product with a reciprocal."""
    if node.op_type == "Div" and node.inputs[0] is not None and node.inputs[1] is not None:
        yield node.inputs[0], node.inputs[1]
    if node.op_type != "Mul":
        return
    for part, other in ((0, 1), (1, 0)):
        inverse = _producer(node.inputs[other], "Reciprocal")
        data, divisor = node.inputs[part], None if inverse is None else inverse.inputs[0]
        if data is not None and divisor is not None:
            yield data, divisor


def _is_logistic(node: ir.Node) -> bool:
    if node.op_type == "Reciprocal" or (node.op_type == "Div" and number(node.inputs[0]) == 1.0):
        return _one_more_than_exp(node.inputs[-1]) is not None
    return any(_one_more_than_exp(divisor) is part for part, divisor in _quotients(node))


def _one_more_than_exp(value: ir.Value | None) -> ir.Value | None:
    """Return the exponential that 1 is added to; None: it is something else."""
    node = _producer(value, "Add")
    line = None if node is None else affine(node)
    if line is None or line[1:] != (1.0, 1.0) or _producer(line[0], "Exp") is None:
        return None
    return line[0]


def _is_shifted_tanh(node: ir.Node) -> bool:
    """Return whether the values are half of ``1 + tanh(x)`` or of ``1 - tanh(x)``, written in any order."""
    factor, addend, current = 1.0, 0.0, node
    while (line := affine(current)) is not None:
        data, times, plus = line
        factor, addend, source = factor * times, addend + factor * plus, data.producer()
        if source is None:
            return False
        if source.op_type == "Tanh":
            return (abs(factor), addend) == (0.5, 0.5)
        current = source
    return False


def _is_square(node: ir.Node) -> bool:
    return (node.op_type == "Mul" and node.inputs[0] is node.inputs[1]) or (
        node.op_type == "Pow" and number(node.inputs[1]) == 2.0
    )


def _is_elu(node: ir.Node) -> bool:
    """Return whether this is how the exporter writes a softplus, which is its own argument where that is large."""
    return node.op_type == "Where" and any(_producer(value, "Softplus") is not None for value in node.inputs)


def _sums(value: ir.Value, data: ir.Value, axis: int) -> bool:
    """Whether a value is the sum of ``data`` over an axis, apart from a floor or a small number that keeps it from zero."""
    node = value.producer()
    while node is not None and node.op_type in ("Expand", "Clip", "Max", "Identity", "Add"):
        if node.op_type == "Add":
            line = affine(node)
            if line is None or line[1] != 1.0 or abs(line[2]) > 1e-3:
                return False
            value = line[0]
        elif node.inputs[0] is not None and node.inputs[0].const_value is None:
            value = node.inputs[0]
        elif node.inputs[1] is not None:
            value = node.inputs[1]
        node = value.producer()
    return node is not None and node.op_type in ("ReduceSum", "ReduceL1") and _reduces(node, data, axis)


def _log_sums(value: ir.Value, data: ir.Value, axis: int) -> bool:
    """Return whether a value is the logarithm of the sum of the exponentials of ``data`` over an axis."""
    whole = _producer(value, "ReduceLogSumExp")
    if whole is not None:
        return _reduces(whole, data, axis)
    log = _producer(value, "Log")
    total = None if log is None else _producer(log.inputs[0], "ReduceSum")
    power = None if total is None else _producer(total.inputs[0], "Exp")
    if total is None or power is None or power.inputs[0] is not data:
        return False
    return _reduces(total, power.outputs[0], axis)


def _reduces(node: ir.Node, data: ir.Value, axis: int) -> bool:
    """Return whether a node reduces ``data`` over this axis alone and keeps the axis."""
    if node.inputs[0] is not data or data.shape is None:
        return False
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        given = node.inputs[1] if len(node.inputs) > 1 else None
        axes = [] if given is None or given.const_value is None else [int(i) for i in given.const_value.numpy().ravel()]
    keeps = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    return bool(keeps) and [at % len(data.shape) for at in axes] == [axis]


def _producer(value: ir.Value | None, kind: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind else None
