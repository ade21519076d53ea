"""What a graph costs: multiply-adds (MACs) for one image, and parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl_deploy.runtime.errors import TraceError
from mtl_deploy.runtime.onnx_format import weighted

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Cost:
    """The cost of some nodes of a graph.

    Attributes:
        multiply_adds: for one image, in convolutions and matrix products (by convention nothing else is counted).
        parameters: floating-point weights and biases that the nodes read, each counted once.
    """

    multiply_adds: int
    parameters: int


def cost(nodes: Iterable[ir.Node]) -> Cost:
    """Count the cost of nodes whose shapes are inferred (:func:`.sizes.at_size`); a free batch counts as one image.

    Raises:
        TraceError: a size of a convolution or matrix product is unknown, so its work cannot be counted.
    """
    nodes = list(nodes)
    parameters = {value: None for node in nodes for value in values_read(node) if is_parameter(value)}
    return Cost(
        multiply_adds=sum(multiply_adds(node) for node in nodes),
        parameters=sum(elements(value) for value in parameters),
    )


def multiply_adds(node: ir.Node) -> int:
    """Count one node's multiply-adds for one image; 0 if it is neither a convolution nor a matrix product."""
    if node.domain or node.op_type not in WEIGHTED:
        return 0
    output, inputs, images = node.outputs[0], node.inputs, _images(node)
    if node.op_type == "Conv":
        return prod(_sizes(output, node)) * prod(_sizes(inputs[1], node)[1:]) // images
    if node.op_type == "ConvTranspose":
        return prod(_sizes(inputs[0], node)) * prod(_sizes(inputs[1], node)[1:]) // images
    if node.op_type == "Attention":  # of opset 23: queries times keys, and the resulting weights times values
        keys = _sizes(inputs[1], node)[-2]
        return (prod(_sizes(inputs[0], node)) + prod(_sizes(output, node))) * keys // images
    transposed = node.op_type == "Gemm" and "transA" in node.attributes and node.attributes["transA"].as_int()
    inner = _sizes(inputs[0], node)[0 if transposed else -1]
    return prod(_sizes(output, node)) * inner // images


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


def _sizes(value: ir.Value | None, node: ir.Node) -> list[int]:
    shape = None if value is None else value.shape
    if shape is None:
        raise TraceError(f"node {node.name!r} ({node.op_type}): its shape is unknown, so its work cannot be counted")
    sizes = []
    for position, size in enumerate(shape):
        if isinstance(size, int):
            sizes.append(size)
        elif position == 0:
            sizes.append(1)
        else:
            raise TraceError(
                f"node {node.name!r} ({node.op_type}): its shape {shape} is free in other dimensions than the batch"
            )
    return sizes
