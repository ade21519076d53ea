"""A graph in the form that ONNX Runtime runs fastest between integer layers on a processor. What it computes stays the same.

Some things that ONNX Runtime (1.31) does well in an FP32 graph it does badly around integer layers, and one it does in neither:

- It keeps integer convolutions in NHWC and moves what is around them into that layout. The normalisation of an image is a product
  and a sum with one constant per channel; in NHWC each of them repeats its constant every three values, and takes longer than the
  first convolution. It becomes a BatchNormalization, which is not moved.
- ``x * sigmoid(x)`` is fused into ``com.microsoft.QuickGelu``, unless ``x`` comes from a DequantizeLinear: each reader gets a copy
  of that first, and then the two no longer read the same tensor. So it is written as that operator. OpenVINO reads it too.
- ``x * (0.5 * (1 + erf(x / sqrt(2))))``, as PyTorch exports a GELU, is not fused, but ``(x * (1 + erf(x / sqrt(2)))) * 0.5`` is,
  with the bias before it. A product with a half is exact.
- ``PRelu`` with a slope per channel takes longer than ``relu(x) - slope * relu(-x)``, which is the same to the bit.
  OpenVINO makes one operator of that again. With one slope it is a ``LeakyRelu``, which has an integer kernel.
- Hard activations that a network spells out become one operator each, see :mod:`mtl_deploy.calibration.int8.spelled_out`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float, prepared

from .spelled_out import alone, either, number, replace, spell_together

SILU = "QuickGelu"
"""``x * sigmoid(alpha * x)`` (https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QuickGelu)."""

_CONTRIB = "com.microsoft"
_HARD_SWISH = 14  # the first opset with one
_PLANES = 4  # the rank of a tensor of images
_CHANNELS = 4  # at most: in NHWC, products with more constants in a row are fast


def in_processor_form(model: onnx.ModelProto) -> ir.Model:
    """Return a graph as :func:`~mtl_deploy.calibration.graph.typed.prepared` does, in the form that runs fastest on integers.

    Args:
        model: the graph. It is not changed. Weighted nodes keep their names, and so do the tensors that remain.
    """
    graph = prepared(model)
    if graph.opset_imports.get("", 0) >= _HARD_SWISH:
        spell_together(graph.graph)
    steps: tuple[Callable[[ir.Node], bool], ...] = (_join_silu, _join_normalisation, _turn_gelu)
    for node in list(graph.graph):
        if node.op_type == "Mul" and node.graph is not None:
            any(step(node) for step in steps)
    for node in list(graph.graph):
        if node.op_type == "PRelu":
            _spell_prelu(node)
    if any(node.domain == _CONTRIB for node in graph.graph):
        graph.opset_imports.setdefault(_CONTRIB, 1)
    return graph


def _spell_prelu(node: ir.Node) -> None:
    """Write a PRelu whose slopes are constants as ``relu(x) + (-slope) * relu(-x)``, or as a LeakyRelu if it has one slope."""
    value, slope = node.inputs
    graph = node.graph
    if graph is None or not is_float(value) or slope is None or slope.const_value is None or not slope.is_initializer():
        return
    slopes = slope.const_value.numpy()
    if slopes.size and (slopes == slopes.flat[0]).all():
        alpha = float(slopes.flat[0])
        replace([node], ir.node("LeakyRelu", [value], {"alpha": alpha}, name=node.name))
        return
    negated = _constant(graph, f"{node.name}/negative_slope", -slopes)
    above = ir.node("Relu", [value], name=f"{node.name}/above")
    turned = ir.node("Neg", [value], name=f"{node.name}/negative")
    below = ir.node("Relu", turned.outputs, name=f"{node.name}/below")
    scaled = ir.node("Mul", [below.outputs[0], negated], name=f"{node.name}/scaled")
    new = [above, turned, below, scaled]
    for one in new:
        one.outputs[0].name, one.outputs[0].type, one.outputs[0].shape = f"{one.name}_out", value.type, value.shape
    graph.insert_before(node, new)
    replace([node], ir.node("Add", [above.outputs[0], scaled.outputs[0]], name=node.name))


def _join_silu(node: ir.Node) -> bool:
    """Make ``x * sigmoid(x)`` one node; return whether a node is that product."""
    for value, gate in either(node):
        sigmoid = gate.producer()
        if sigmoid is not None and sigmoid.op_type == "Sigmoid" and sigmoid.inputs[0] is value and alone(gate):
            replace([sigmoid, node], ir.node(SILU, [value], {"alpha": 1.0}, domain=_CONTRIB, name=node.name))
            return True
    return False


def _turn_gelu(node: ir.Node) -> bool:
    """Multiply the half of a GELU last; return whether a node is a GELU's last product."""
    for value, gate in either(node):
        halved = gate.producer()
        for inner, half in either(halved if halved is not None and halved.op_type == "Mul" else None):
            one_more = inner.producer()
            if number(half) == 0.5 and alone(gate) and alone(inner) and _is_error_function(one_more):
                assert halved is not None  # it has two inputs
                halved.replace_input_with(0, value)
                halved.replace_input_with(1, inner)
                node.replace_input_with(0, gate)
                node.replace_input_with(1, half)
                return True
    return False


def _is_error_function(node: ir.Node | None) -> bool:
    """Whether a node adds 1 to an error function."""
    return any(
        number(constant) == 1 and (erf := value.producer()) is not None and erf.op_type == "Erf"
        for value, constant in either(node if node is not None and node.op_type == "Add" else None)
    )


def _join_normalisation(node: ir.Node) -> bool:
    """Make a BatchNormalization of the product and the sum that normalise pixels; return whether a node is that product."""
    images, scale = node.inputs
    readers = list(node.outputs[0].uses())
    if not is_float(images) or not alone(node.outputs[0]) or readers[0].node.op_type != "Add":
        return False
    shift = readers[0].node
    constants = [_per_channel(images, one) for one in (scale, shift.inputs[1])]
    if readers[0].idx != 0 or constants[0] is None or constants[1] is None:
        return False
    graph, channels = node.graph, constants[0].size
    assert graph is not None
    names = ("scale", "bias", "mean", "var")
    arrays = [*constants, np.zeros(channels, np.float32), np.ones(channels, np.float32)]
    parameters = [_constant(graph, f"{shift.name}/{name}", array) for name, array in zip(names, arrays, strict=True)]
    attributes = {"epsilon": 0.0}
    replace([node, shift], ir.node("BatchNormalization", [images, *parameters], attributes, name=shift.name))
    return True


def _per_channel(images: ir.Value, value: ir.Value | None) -> npt.NDArray[np.float32] | None:
    """Return a constant's numbers if it has one per channel of images."""
    if images.shape is None or len(images.shape) != _PLANES or value is None or value.const_value is None:
        return None
    array: npt.NDArray[Any] = value.const_value.numpy()
    fits = value.is_initializer() and array.dtype == np.float32 and array.shape == (1, images.shape[1], 1, 1)
    fits = fits and array.size <= _CHANNELS
    return array.reshape(-1) if fits else None


def _constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    tensor = ir.tensor(np.asarray(array, np.float32), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value
