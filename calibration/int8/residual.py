"""Residual sums: which of the two branches is the skip branch."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float
from mtl_deploy.runtime.onnx_format.weighted import is_weighted


def skip_branch(node: ir.Node, quantized: Collection[ir.Node]) -> int | None:
    """Return the input of a residual sum that gets Q/DQ; None if the node is not such a sum or its convolution is not in INT8.

    TensorRT fuses a convolution with the sum that follows it if the sum's other input is INT8; Q/DQ between the two would prevent
    that (https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/add_custom_qdq_cases.html).
    The skip branch is found from the nearest common ancestor, as in NVIDIA's ModelOpt (``build_non_residual_input_map``): if both
    branches end in a convolution, it is the one with fewer weighted layers since that ancestor, or the second if both have equally
    many.

    Args:
        node: any.
        quantized: the weighted nodes that compute in INT8.
    """
    if node.op_type != "Add" or len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if not _is_data(first) or not _is_data(second) or first is second:
        return None
    assert first is not None  # both are data
    assert second is not None
    if first.shape is not None and second.shape is not None and first.shape != second.shape:
        return None  # a broadcast, not a residual sum
    ends = [_convolution(value) for value in (first, second)]
    if not any(end in quantized for end in ends if end is not None):
        return None
    if None in ends:
        skip = ends.index(None)
    else:
        before = [_ancestors(value) for value in (first, second)]
        lengths = [sum(is_weighted(one.op_type) for one in own - other) for own, other in (before, before[::-1])]
        skip = 0 if lengths[0] < lengths[1] else 1
    main = ends[1 - skip]
    return skip if main in quantized else None


def _is_data(value: ir.Value | None) -> bool:
    return is_float(value) and not value.is_initializer()


def _convolution(value: ir.Value) -> ir.Node | None:
    """Return the convolution that computes a value, possibly followed by a batch normalization."""
    producer = value.producer()
    if producer is not None and producer.op_type == "BatchNormalization" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer if producer is not None and producer.op_type in ("Conv", "ConvTranspose") else None


def _ancestors(value: ir.Value) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found.add(node)
        waiting += [one.producer() for one in node.inputs if one is not None]
    return found
