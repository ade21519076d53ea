"""A graph in the form that ONNX Runtime runs fastest between integer layers on a processor. Its values stay the same.

ONNX Runtime (1.31) keeps integer convolutions in NHWC and moves the nodes around them into that layout. Two things that it does well
in an FP32 graph it does badly there, so they are written here as one operator each:

- The normalisation of an image is a product and a sum with one constant per channel. In NHWC, each repeats its constant every three
  values, which takes longer than the first convolution. A BatchNormalization is not moved.
- ``x * sigmoid(x)`` becomes one operator, ``com.microsoft.QuickGelu``, unless ``x`` comes from a DequantizeLinear: each of its readers
  gets a copy of that first, and then the two no longer read the same tensor. OpenVINO reads that operator too.

Hard activations that a network spells out, ``x * relu6(x + 3) / 6``, become ONNX's operators, so that there is one form of each:
see :mod:`mtl_deploy.calibration.int8.hard_activations`.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float, prepared

from .spelled_out import replace, spell_together

SILU = "QuickGelu"
"""``x * sigmoid(alpha * x)`` (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QuickGelu)."""

_CONTRIB = "com.microsoft"
_HARD_SWISH = 14  # the first opset with one
_PLANES = 4  # the rank of a tensor of images


def in_processor_form(model: onnx.ModelProto) -> ir.Model:
    """Return a graph as :func:`~mtl_deploy.calibration.graph.typed.prepared` does, in the form that runs fastest on integers.

    Args:
        model: the graph. It is not changed. Names of weighted nodes and of the tensors that remain stay as they are.
    """
    graph = prepared(model)
    if graph.opset_imports.get("", 0) >= _HARD_SWISH:
        spell_together(graph.graph)
    for node in list(graph.graph):
        if node.op_type != "Mul" or node.graph is None:
            continue
        if (gated := _gated(node)) is not None:
            replace([gated[1], node], ir.node(SILU, [gated[0]], {"alpha": 1.0}, domain=_CONTRIB, name=node.name))
            graph.opset_imports.setdefault(_CONTRIB, 1)
        elif (shift := _normalised(node)) is not None:
            replace([node, shift], _normalisation(graph.graph, node, shift))
    return graph


def _gated(node: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return ``x`` and the sigmoid's node if a product is ``x * sigmoid(x)``; None if it is not."""
    for value, gate in (tuple(node.inputs), tuple(node.inputs)[::-1]):
        sigmoid = None if gate is None else gate.producer()
        if sigmoid is None or sigmoid.op_type != "Sigmoid" or sigmoid.inputs[0] is not value or not is_float(value):
            continue
        if len(sigmoid.outputs[0].uses()) == 1 and not sigmoid.outputs[0].is_graph_output():
            return value, sigmoid
    return None


def _normalised(node: ir.Node) -> ir.Node | None:
    """Return the sum if a product and the sum after it have one constant per channel of images that just became floats."""
    product, images = node.outputs[0], node.inputs[0]
    uses = list(product.uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add" or uses[0].idx != 0 or product.is_graph_output():
        return None
    if not is_float(images) or images.shape is None or len(images.shape) != _PLANES or not _of_pixels(images):
        return None
    channels = images.shape[1]
    constants = [node.inputs[1], uses[0].node.inputs[1]]
    if not isinstance(channels, int) or any(_per_channel(one, channels) is None for one in constants):
        return None
    return uses[0].node


def _of_pixels(value: ir.Value) -> bool:
    """Whether a tensor is made of integers by moving values alone."""
    producer = value.producer()
    while producer is not None and producer.op_type in ("Transpose", "Gather"):
        origin = producer.inputs[0]
        producer = None if origin is None else origin.producer()
    return producer is not None and producer.op_type == "Cast"


def _per_channel(value: ir.Value | None, channels: int) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    if not is_float(value) or value.const_value is None or not value.is_initializer():
        return None
    constant = value.const_value.numpy()
    return constant.reshape(-1) if constant.shape == (1, channels, 1, 1) else None


def _normalisation(graph: ir.Graph, scale: ir.Node, shift: ir.Node) -> ir.Node:
    images, channels = scale.inputs[0], scale.inputs[0].shape[1]
    parameters = {
        "scale": _per_channel(scale.inputs[1], channels),
        "bias": _per_channel(shift.inputs[1], channels),
        "mean": np.zeros(channels, np.float32),
        "var": np.ones(channels, np.float32),
    }
    values = []
    for name, array in parameters.items():
        tensor = ir.tensor(array, name=f"{shift.name}/{name}")
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        graph.register_initializer(value)
        values.append(value)
    return ir.node("BatchNormalization", [images, *values], {"epsilon": 0.0}, name=shift.name)
