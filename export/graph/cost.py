"""What a graph costs: multiply-adds of one image, and parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl_deploy.runtime.onnx_format import weighted
from mtl_deploy.runtime.onnx_format.border import of_border

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Cost:
    """The cost of some nodes of a graph.

    Attributes:
        multiply_adds: for one image, in convolutions, matrix products, recurrent layers and attention (by convention nothing else
            is counted).
        parameters: floating-point weights and biases that the nodes read, each counted once.
        uncounted: operators of the nodes whose work is left out, since sizes that the count needs are not known, one per node.
    """

    multiply_adds: int
    parameters: int
    uncounted: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """For people: what is not counted."""
        if not self.uncounted:
            return ()
        counts = Counter(self.uncounted)
        named = ", ".join(f"{count} {op_type}" for op_type, count in sorted(counts.items()))
        return (
            f"the multiply-adds leave out {named}, whose sizes are not known before the graph runs; shares and ratios are those of "
            "the rest",
        )


def cost(nodes: Iterable[ir.Node]) -> Cost:
    """Count the cost of nodes whose shapes are inferred (:func:`.sizes.at_size`); a free batch counts as one image.

    Nodes that resize a camera's frames are left out: they are no part of the network, see :func:`border_multiply_adds`.
    """
    nodes = [node for node in nodes if not of_border(node.name)]
    parameters = {value: None for node in nodes for value in values_read(node) if is_parameter(value)}
    counts = {node: _count(node) for node in nodes}
    return Cost(
        multiply_adds=sum(count // _images(node) for node, count in counts.items() if count is not None),
        parameters=sum(elements(value) for value in parameters),
        uncounted=tuple(node.op_type for node, count in counts.items() if count is None),
    )


def border_multiply_adds(nodes: Iterable[ir.Node]) -> int:
    """Count the multiply-adds for one frame of the nodes that resize it."""
    return sum((_count(node) or 0) // _images(node) for node in nodes if of_border(node.name))


def multiply_adds(node: ir.Node) -> int:
    """Count one node's multiply-adds for one image; 0 if it carries no weights, only resizes, or if they cannot be counted.

    Which operators do, and what they take, is in :mod:`mtl_deploy.runtime.onnx_format.weighted`. An ``If`` counts as its most
    expensive branch, a ``Scan`` or ``Loop`` as its body times its iterations (once if their number is not known).
    """
    return 0 if of_border(node.name) else (_count(node) or 0) // _images(node)


def _count(node: ir.Node) -> int | None:
    """Count a node's multiply-adds for its whole batch; None if a size that the count needs is not known."""
    if bodies := _bodies(node):
        work = [[_count(inner) for inner in body] for body in bodies]
        if any(count is None for counts in work for count in counts):
            return None
        return _iterations(node) * max(sum(count or 0 for count in counts) for counts in work)
    return weighted.multiply_adds(
        node.op_type,
        [_shape(value) for value in node.inputs],
        [_shape(value) for value in node.outputs],
        {name: attribute.value for name, attribute in node.attributes.items()},
        node.domain,
    )


def values_read(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node reads, and what the graphs inside it read (the branches of an ``If``, the body of a ``Loop``)."""
    yield from (value for value in node.inputs if value is not None)
    for body in _bodies(node):
        yield from body.outputs
        for inner in body.all_nodes():
            yield from (value for value in inner.inputs if value is not None)


def _bodies(node: ir.Node) -> list[ir.Graph]:
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            found.append(attribute.as_graph())
        elif attribute.type.name == "GRAPHS":
            found += attribute.as_graphs()
    return found


def _iterations(node: ir.Node) -> int:
    """Return how often the graph inside a node runs; 1 if that is not known."""
    if node.op_type == "Loop":
        most = node.inputs[0]
        constant = None if most is None else most.const_value
        return 1 if constant is None else int(constant.numpy().ravel()[0])
    if node.op_type == "Scan":
        scanned = node.inputs[len(node.inputs) - node.attributes["num_scan_inputs"].as_int()]
        axes = node.attributes.get("scan_input_axes")
        shape = _shape(scanned)
        size = None if shape is None else shape[0 if axes is None else axes.as_ints()[0]]
        return size if isinstance(size, int) else 1
    return 1


def weight(node: ir.Node) -> ir.Value | None:
    """Return the constant weight of a node that carries weights, the first of several; None for any other node."""
    operator = None if node.domain else weighted.WEIGHTED.get(node.op_type)
    if operator is None:
        return None
    inputs = (value for place, value in enumerate(node.inputs) if operator.may_be_weight(place))
    return next((value for value in inputs if value is not None and value.is_initializer()), None)


def is_parameter(value: ir.Value | None) -> bool:
    """Return whether a value is a floating-point constant: a weight, a bias, a BatchNorm statistic."""
    return value is not None and value.is_initializer() and value.dtype is not None and value.dtype.is_floating_point()


def elements(value: ir.Value) -> int:
    """Return the number of elements of a constant."""
    assert value.const_value is not None  # an initializer has one
    return int(value.const_value.size)


def _images(node: ir.Node) -> int:
    """Return the batch size of the graph that a node is in; 1 if it is free."""
    graph = node.graph
    shape = graph.inputs[0].shape if graph is not None and graph.inputs else None
    return shape[0] if shape is not None and len(shape) > 0 and isinstance(shape[0], int) else 1


def _shape(value: ir.Value | None) -> list[object] | None:
    """Return a value's sizes; a free batch counts as one image."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) or position else 1 for position, size in enumerate(value.shape)]
