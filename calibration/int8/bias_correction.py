"""Correcting the mean error that quantization causes in a regression, in the bias of its last layer.

The rounding errors of many layers do not cancel: a regression is a little too high or too low on every image. The mean of that
error on the calibration images is corrected where it costs nothing, in the bias of the last layer, which stays in higher precision.
After Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019
(https://arxiv.org/abs/1906.04721), section "Empirical bias correction", but only at the outputs. Classes need no correction: they
depend only on differences of logits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

_PASSING = frozenset(("Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Cast"))


def correct_bias(model: onnx.ModelProto, output: str, shift: npt.NDArray[np.floating]) -> bool:
    """Shift an output by a constant, in place, through the bias of the layer that computes it.

    Args:
        model: a graph in which a ``Gemm`` with a bias of its own computes the output, possibly followed by constant factors and
            summands (decoding).
        output: its name.
        shift: what to add to it, one figure per value of an image.

    Returns:
        whether it was done; False if something else computes the output, in which case the graph is unchanged.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    move = np.asarray(shift, np.float64).reshape(-1)
    node = producers.get(output)
    while node is not None and node.op_type != "Gemm":
        data = [name for name in node.input if name and name not in weights]
        factor = _factor(node, weights)
        if len(data) != 1 or factor is None:
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            move = move / factor
        node = producers.get(data[0])
    if node is None or len(node.input) < 3 or node.input[2] not in weights or _uses(model, node.input[2]) != 1:
        return False
    tensor = weights[node.input[2]]
    bias = numpy_helper.to_array(tensor)
    beta = next((attribute.f for attribute in node.attribute if attribute.name == "beta"), 1.0)
    if bias.size != move.size or not beta:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        moved = (bias + (move / beta).reshape(bias.shape)).astype(bias.dtype)
    if not np.isfinite(moved).all():  # a factor that is nearly zero stands behind the layer
        return False
    tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return True


def _factor(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> npt.NDArray[np.float64] | None:
    """Return what a node multiplies its data by; None if it does more than scale, add a constant or reshape."""
    if node.op_type in _PASSING:
        return np.ones(1)
    constants = [numpy_helper.to_array(weights[name]) for name in node.input if name in weights]
    if node.op_type not in ("Mul", "Add") or len(constants) != 1 or constants[0].size != 1:
        return None
    value = float(constants[0].reshape(())) if node.op_type == "Mul" else 1.0
    return np.array([value]) if value else None


def _uses(model: onnx.ModelProto, name: str) -> int:
    return sum(list(node.input).count(name) for node in model.graph.node)
