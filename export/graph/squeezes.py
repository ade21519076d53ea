"""Squeezes without axes, which would take a batch of one as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .constants import constant, free_name

if TYPE_CHECKING:
    import onnx_ir as ir


def settle_squeezes(model: ir.Model) -> int:
    """Give each Squeeze without axes those that the exporter's shapes have as 1, never the first; return how many there were.

    ``x.squeeze()`` is exported without axes, so that a batch of one would go as well. Call it before anything infers shapes
    for one image.
    """
    import onnx_ir as ir

    changed = 0
    for node in list(model.graph.all_nodes()):
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "Squeeze" or (len(node.inputs) > 1 and node.inputs[1] is not None) or source is None:
            continue
        if source.shape is None or "axes" in node.attributes or len(source.shape) == 0 or source.shape[0] == 1:
            continue
        axes = [axis for axis, size in enumerate(source.shape) if axis and size == 1]
        if axes:
            node.resize_inputs(2)
            node.replace_input_with(1, constant(model, f"{node.outputs[0].name}_axes", np.array(axes, np.int64)))
        else:
            kept = ir.node("Identity", [source], name=f"{node.name}_kept")
            old, new = node.outputs[0], kept.outputs[0]
            name = old.name
            new.shape, new.type = source.shape, source.type
            graph = node.graph
            assert graph is not None  # a node of a model lies in a graph
            graph.insert_before(node, kept)
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name, new.name = free_name(model, f"{name}_squeezed"), name
            graph.remove(node)
        changed += 1
    return changed
