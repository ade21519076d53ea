"""Hard activations that a network spells out: ``relu6(x + 3) / 6`` and ``x`` times that, as ``HardSigmoid`` and ``HardSwish``.

That is how they were written before PyTorch had modules for them, and how Paddle's exporter writes them still.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float

_SIX = 6.0


def spell_together(graph: ir.Graph) -> None:
    """Replace spelled-out hard activations by one node each, in place. A result keeps its name, and its node the last one's."""
    for node in list(graph):
        if node.graph is not None and (found := _hard_sigmoid(node)) is not None:
            value, old = found
            attributes = {"alpha": 1 / _SIX, "beta": 0.5}
            replace(old, ir.node("HardSigmoid", [value], attributes, name=node.name))
    for node in list(graph):
        if node.graph is not None and (found := _hard_swish(node)) is not None:
            value, old = found
            replace(old, ir.node("HardSwish", [value], name=node.name))


def replace(old: list[ir.Node], new: ir.Node) -> None:
    """Put one node in the place of several, of which the last gives the result. The result keeps its name.

    Args:
        old: in the graph's order; nothing else reads what is between them.
        new: with one output.
    """
    last = old[-1]
    graph, result = last.graph, last.outputs[0]
    assert graph is not None
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = result.name, result.type, result.shape
    graph.insert_before(last, new)
    result.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    graph.remove(old[::-1], safe=True)


def either(node: ir.Node | None) -> list[tuple[ir.Value, ir.Value]]:
    """Return both orders of a node's two inputs."""
    if node is None or len(node.inputs) != 2 or None in node.inputs:
        return []
    first, second = (value for value in node.inputs if value is not None)
    return [(first, second), (second, first)]


def alone(value: ir.Value) -> bool:
    """Whether one node reads a value and nothing else."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def number(value: ir.Value | None) -> float | None:
    """Return a constant's only number."""
    if value is None or value.const_value is None or not value.is_initializer() or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(-1)[0])


Found = tuple[ir.Value, list[ir.Node]]


def _hard_sigmoid(node: ir.Node) -> Found | None:
    """Match ``relu6(x + 3) / 6``."""
    divided = _sixth(node)
    clipped = None if divided is None else _clipped(divided)
    return None if clipped is None else (clipped[0], [*clipped[1], node])


def _hard_swish(node: ir.Node) -> Found | None:
    """Match ``x * hard_sigmoid(x)`` and ``x * relu6(x + 3) / 6``."""
    product = node if node.op_type == "Mul" else None
    for value, gate in either(product):
        sigmoid = gate.producer()
        if sigmoid is not None and sigmoid.op_type == "HardSigmoid" and sigmoid.inputs[0] is value and alone(gate):
            alpha, beta = (sigmoid.attributes.get(name) for name in ("alpha", "beta"))
            if alpha is not None and beta is not None:
                exact = math.isclose(alpha.as_float(), 1 / _SIX, rel_tol=1e-6) and beta.as_float() == 0.5
                return (value, [sigmoid, node]) if exact else None
    divided = _sixth(node)
    product = None if divided is None or not alone(divided) else divided.producer()
    for value, gate in either(product if product is not None and product.op_type == "Mul" else None):
        clipped = _clipped(gate)
        if product is not None and clipped is not None and clipped[0] is value:
            return value, [*clipped[1], product, node]
    return None


def _clipped(value: ir.Value) -> Found | None:
    """Return ``x`` and the nodes of ``relu6(x + 3)``, whose result one node reads."""
    clip = value.producer()
    if clip is None or clip.op_type != "Clip" or not alone(value):
        return None
    bounds = [number(clip.inputs[place] if place < len(clip.inputs) else None) for place in (1, 2)]
    shifted = clip.inputs[0]
    add = None if shifted is None else shifted.producer()
    if bounds != [0.0, _SIX] or shifted is None or add is None or add.op_type != "Add" or not alone(shifted):
        return None
    for data, constant in either(add):
        if is_float(data) and number(constant) == _SIX / 2:
            return data, [add, clip]
    return None


def _sixth(node: ir.Node) -> ir.Value | None:
    """Return what a node divides by 6."""
    if node.op_type == "Div" and number(node.inputs[1]) == _SIX:
        return node.inputs[0]
    for data, constant in either(node if node.op_type == "Mul" else None):
        found = number(constant)
        if found is not None and math.isclose(found, 1 / _SIX, rel_tol=1e-6):
            return data
    return None
