"""ArgMax in a form that OpenVINO runs fast where the classes of a pixel lie side by side in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

FORM = 1
"""Changes when the rewriting does: what was compiled before is compiled again."""
_MOST_CLASSES = 1 << 16  # float32 counts them exactly
_SPREADS = frozenset(
    {"Convolution", "GroupConvolution", "Interpolate", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}
)
_KEEPS = frozenset({"Add", "Multiply", "Subtract", "Relu", "Sigmoid", "SoftMax", "Clamp", "FakeQuantize", "LogSoftmax"})
_FAR = 8  # nodes back to what makes the scores


def rewrite(module: Any, model: Any) -> int:
    """Replace ArgMax over classes, in place, and return how many there were.

    OpenVINO makes ONNX's ArgMax a TopK that keeps the order of equal scores. It goes through them one at a time where they are
    side by side in memory: with 40 classes at 256x320, this takes longer than three passes over all scores, the
    maximum, a comparison with it, and the first class that is equal. The answers are the same, ties included: the first class of
    the largest score. Over classes that are planes of memory, TopK is faster, and stays.

    Args:
        module: ``openvino``.
        model: OpenVINO's model; it is changed.
    """
    ops = module.opset8
    found = 0
    for node in model.get_ordered_ops():
        axis = _axis(node)
        if axis is None:
            continue
        scores = node.input(0).get_source_output()
        shape = scores.get_partial_shape()
        classes, rank = shape[axis].get_length(), shape.rank.get_length()
        if not (axis == rank - 1 or _is_interleaved(scores.get_node(), axis)):
            continue
        countdown = np.arange(classes - 1, -1, -1, dtype=np.float32).reshape(
            [classes if one == axis else 1 for one in range(rank)]
        )
        largest = ops.reduce_max(scores, np.array([axis]), keep_dims=True)
        left = ops.select(ops.equal(scores, largest), ops.constant(countdown), ops.constant(np.float32(0)))
        most = ops.reduce_max(left, np.array([axis]), keep_dims=True)
        first = ops.subtract(ops.constant(np.float32(classes - 1)), most)
        index = ops.convert(first, node.get_attributes()["index_element_type"])
        index.set_friendly_name(node.get_friendly_name())
        node.output(1).replace(index.output(0))
        found += 1
    return found


def _axis(node: Any) -> int | None:
    """Return the axis of a TopK that is an ArgMax with known classes; None of any other node."""
    if node.get_type_name() != "TopK":
        return None
    about = node.get_attributes()
    if about["mode"] != "max" or node.output(0).get_target_inputs() or not node.output(1).get_target_inputs():
        return None
    count = node.input(1).get_source_output().get_node()
    if count.get_type_name() != "Constant" or int(count.get_data().reshape(-1)[0]) != 1:
        return None
    scores = node.input(0).get_source_output()
    shape = scores.get_partial_shape()
    if shape.rank.is_dynamic or scores.get_element_type().get_type_name() != "f32":
        return None
    rank = shape.rank.get_length()
    axis = int(about["axis"]) % rank
    return axis if shape[axis].is_static and shape[axis].get_length() <= _MOST_CLASSES else None


def _is_interleaved(node: Any, axis: int) -> bool:
    """Return whether convolutions or a resize make the scores: OpenVINO keeps their channels side by side."""
    if axis != 1 or node.get_output_partial_shape(0).rank.get_length() < 3:
        return False
    for _ in range(_FAR):
        if node.get_type_name() in _SPREADS:
            return True
        sources = [one.get_source_output().get_node() for one in node.inputs()]
        made = [one for one in sources if one.get_type_name() != "Constant"]
        if node.get_type_name() not in _KEEPS or not made:
            return False
        node = made[0]
    return False
