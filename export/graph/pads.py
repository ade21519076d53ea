"""Pads before a pooling, written so that no optimizer makes one node of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .constants import constant, free_name

if TYPE_CHECKING:
    import onnx_ir as ir


_POOLS = ("MaxPool", "AveragePool", "LpPool")


def keep_pads(model: ir.Model) -> int:
    """Put a Clip that changes nothing between each Pad and the pooling that reads it; return how many there were.

    ONNX Runtime up to 1.31 (``PadFusion``, a basic optimization) folds a Pad of zeros into MaxPool, whose own padding is minus
    infinity, and into AveragePool with ``ceil_mode``, whose windows then count otherwise:
    https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/pad_fusion.cc. Identity, an added 0 and a second
    Pad are removed before that; a Clip from minus infinity stays, and FP16 has that number too.
    """
    import onnx_ir as ir

    pools = [node for node in model.graph.all_nodes() if node.op_type in _POOLS and not node.domain]
    padded = [(node, node.inputs[0]) for node in pools if _padded(node.inputs[0])]
    for node, value in padded:
        assert value is not None  # _padded says so
        graph = node.graph
        assert graph is not None  # a node of a model lies in a graph
        name = f"{node.name or node.outputs[0].name}/keep_pad"
        lowest = constant(model, f"{name}_lowest", np.array(-np.inf, np.float32))
        clip = ir.node("Clip", [value, lowest], name=name)
        kept = clip.outputs[0]
        kept.name, kept.shape, kept.type = free_name(model, f"{name}_out"), value.shape, value.type
        graph.insert_before(node, clip)
        node.replace_input_with(0, kept)
    return len(padded)


def _padded(value: ir.Value | None) -> bool:
    before = None if value is None else value.producer()
    return before is not None and before.op_type == "Pad" and not before.domain
