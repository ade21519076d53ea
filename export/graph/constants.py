"""Names and constants that are added to somebody's graph, which may hold any name already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir


def constant(model: ir.Model, name: str, content: npt.NDArray[Any]) -> ir.Value:
    """Add a constant to a graph, in place.

    Args:
        model: the graph; its nodes and those of graphs inside it can read the constant.
        name: that it gets; with a number behind it, if another value has that name.
        content: as it is stored.
    """
    import onnx_ir as ir

    tensor = ir.tensor(np.ascontiguousarray(content).reshape(content.shape), name=free_name(model, name))
    value = ir.Value(
        name=tensor.name, shape=ir.Shape(content.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value


def free_name(model: ir.Model, name: str) -> str:
    """Return a name that no value of a graph or of the graphs inside it has: this one, or with a number behind it."""
    taken = {value.name for node in model.graph.all_nodes() for value in node.outputs}
    for graph in (model.graph, *model.graph.subgraphs()):
        taken.update(value.name for value in graph.inputs)
        taken.update(graph.initializers)
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found
