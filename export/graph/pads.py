"""What poolings do at the borders of an image, written so that every library reads it alike: pads before them, windows beyond."""

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


def settle_pools(model: ir.Model, most: int | None = None) -> int:
    """Write each pooling with ``ceil_mode`` so that no window of it can begin behind the image, in place; return how many changed.

    Neither PyTorch nor ONNX Runtime has such a window, but ONNX counts it where it infers shapes, and then refuses the right ones:
    https://github.com/onnx/onnx/blob/main/onnx/defs/nn/utils.cc. What is computed stays the same.

    Args:
        model: poolings of which it knows the size that they read are settled.
        most: of them to change; None: all.
    """
    changed = 0
    for node in model.graph.all_nodes():
        if changed == most:
            break
        changed += _settled(node)
    return changed


def _settled(node: ir.Node) -> bool:
    import onnx_ir as ir

    given = node.attributes
    kernel, value = given.get_ints("kernel_shape", []), node.inputs[0] if node.inputs else None
    if node.domain or node.op_type not in _POOLS or not given.get_int("ceil_mode", 0):
        return False
    if value is None or value.shape is None or given.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    count, sizes = len(kernel), list(value.shape)[2:]
    steps, gaps = given.get_ints("strides", [1] * count), given.get_ints("dilations", [1] * count)
    pads = list(given.get_ints("pads", [0] * (2 * count)))
    incomplete = behind = False
    for side, size in enumerate(sizes):
        if not isinstance(size, int):
            return False
        room = pads[side] + size + pads[side + count] - (kernel[side] - 1) * gaps[side] - 1
        windows, rest = room // steps[side] + 1, room % steps[side]
        if rest and windows * steps[side] < pads[side] + size:
            incomplete = True  # one more begins in the image, and ends behind it
        elif rest:
            behind = True
            pads[side + count] -= rest
    if not behind or (incomplete and min(pads) < 0):
        return False
    if incomplete:
        given["pads"] = ir.AttrInt64s("pads", pads)
    else:
        given.pop("ceil_mode")
    return True


def _padded(value: ir.Value | None) -> bool:
    before = None if value is None else value.producer()
    return before is not None and before.op_type == "Pad" and not before.domain
