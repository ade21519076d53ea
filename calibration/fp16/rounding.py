"""Rounding a layer's weights to FP16 up or down, so that their errors cancel on the layer's own inputs.

Rounding to nearest makes each weight's error small, not that of the layer's output: inputs are alike (after a ReLU all are
positive, and neighbouring pixels and channels go together), so errors of one sign add up. Which of the two FP16 values next to
a weight is taken is chosen here, one weight after another, by what it does to the mean squared error of the output. No weight moves
by a whole FP16 step.

After Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020 (https://arxiv.org/abs/2004.10568),
whose objective for one layer (equation 13) is a quadratic binary problem in the second moments of its inputs. Each weight in turn
takes the better of its two values, a few times over: coordinate descent, as in Zhang et al., "COMQ: A Backpropagation-Free
Algorithm for Post-Training Quantization" (https://arxiv.org/abs/2403.07134). A layer's bias is one more weight, whose input is 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float, prepared, with_outputs
from mtl_deploy.calibration.observe.session import ObservingSession

from .plan import FP16_MAX

Array = npt.NDArray[Any]
Half = npt.NDArray[np.float16]

LONGEST = 2560
"""Weights that one output value may have: the work grows with the square. 3x3 kernels over 256 channels have 2304."""

_SWEEPS = 3
_AT_ONCE = 64 << 20  # values of second moments in memory
_LAYERS = 16  # whose inputs are in memory at once
_ROWS = 1024  # of inputs, from each batch, spread evenly; or as many as a layer has weights for one output value
_DAMPING = (
    0.01  # of each weight's own second moment is added to it: there are not so many images that none is accidental
)


@dataclass(frozen=True)
class _Layer:
    node: ir.Node
    weight: ir.Value
    bias: ir.Value | None
    length: int  # weights for one output value


def choose_rounding(
    model: onnx.ModelProto, layers: Collection[str], batches: Iterable[Array], *, threads: int | None = None
) -> dict[str, Half]:
    """Choose how the weights of some layers are rounded.

    Args:
        model: FP32, as for :func:`~mtl_deploy.calibration.fp16.typing.to_half`. It is not changed.
        layers: names of nodes. Left out are all but convolutions over images without groups and products with a constant
            matrix, those with weights that others use too or that FP16 cannot hold, and those with more than :data:`LONGEST`
            weights for one output value.
        batches: arrays for the graph's input; read several times.
        threads: of ONNX Runtime; None: one per core.

    Returns:
        by name of a weight or a bias: its values in FP16, each one of the two next to the FP32 value.

    Raises:
        RunError: ONNX Runtime failed.
    """
    graph = prepared(model)
    found = [layer for node in graph.graph if str(node.name) in layers and (layer := _layer(node)) is not None]
    chosen: dict[str, Half] = {}
    for some in _portions(found):
        for layer, moments in zip(some, _moments(model, some, batches, threads), strict=True):
            chosen |= _rounded(layer, moments)
    return chosen


def round_together(weights: Array, moments: Array) -> Half:
    """Round each row of weights up or down so that the error of its product with the inputs is small.

    Args:
        weights: ``(rows, n) float32``, in FP16's range.
        moments: ``(n, n)``: the mean of the products of each two inputs.

    Returns:
        ``(rows, n) float16``.
    """
    exact = weights.astype(np.float64)
    nearest = weights.astype(np.float16)
    beyond = np.where(nearest < exact, np.float16(np.inf), np.float16(-np.inf))
    with np.errstate(over="ignore"):
        other = np.where(nearest == exact, nearest, np.nextafter(nearest, beyond))
    other = np.where(np.isfinite(other), other, nearest)
    error, instead = nearest - exact, other - exact
    effect = error @ moments
    for _ in range(_SWEEPS):
        for place in np.argsort(-np.diag(moments)):
            change = instead[:, place] - error[:, place]
            better = np.flatnonzero(change * (2 * effect[:, place] + change * moments[place, place]) < 0)
            if len(better):
                effect[better] += change[better, None] * moments[place]
                error[better, place], instead[better, place] = instead[better, place], error[better, place]
    return (exact + error).astype(np.float16)


def _layer(node: ir.Node) -> _Layer | None:
    """Return a layer whose weights may be chosen."""
    weight, bias = (node.inputs[place] if len(node.inputs) > place else None for place in (1, 2))
    if weight is None or not _is_own(weight) or not (bias is None or _is_own(bias)):
        return None
    if not all(np.all(np.abs(_value(value)) <= FP16_MAX) for value in (weight, bias) if value is not None):
        return None
    shape = _value(weight).shape
    if node.op_type == "Conv" and len(shape) == 4:
        automatic = node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
        length = 0 if automatic or node.attributes.get_int("group", 1) != 1 else prod(shape[1:])
    elif node.op_type == "Gemm" and len(shape) == 2:
        usual = all(node.attributes.get_float(name, 1.0) == 1 for name in ("alpha", "beta"))
        length = (
            shape[node.attributes.get_int("transB", 0)] if usual and not node.attributes.get_int("transA", 0) else 0
        )
        if bias is not None and _value(bias).size != _value(weight).size // max(length, 1):
            length = 0  # one number for all
    else:
        length = shape[0] if node.op_type == "MatMul" and len(shape) == 2 else 0
    return _Layer(node, weight, bias, length) if 1 < length <= LONGEST else None


def _is_own(value: ir.Value | None) -> bool:
    return is_float(value) and value.is_initializer() and len(value.uses()) == 1


def _portions(layers: list[_Layer]) -> Iterator[list[_Layer]]:
    """Cut layers into lists whose inputs and second moments fit in memory together."""
    some: list[_Layer] = []
    filled = 0
    for layer in layers:
        if some and (filled + layer.length**2 > _AT_ONCE or len(some) == _LAYERS):
            yield some
            some, filled = [], 0
        some.append(layer)
        filled += layer.length**2
    if some:
        yield some


def _moments(
    model: onnx.ModelProto, layers: list[_Layer], batches: Iterable[Array], threads: int | None
) -> list[npt.NDArray[np.float64]]:
    """Return the second moments of the inputs of each layer, with the constant 1 of the bias as the last one."""
    names = [str(layer.node.inputs[0].name) for layer in layers if layer.node.inputs[0] is not None]
    wanted = list(dict.fromkeys(names))
    sums = [np.zeros((layer.length + 1, layer.length + 1)) for layer in layers]
    with closing(ObservingSession(with_outputs(model, wanted), wanted, threads=threads)) as session:
        for batch in batches:
            values = session.run({model.graph.input[0].name: batch}, wanted)
            for layer, name, total in zip(layers, names, sums, strict=True):
                rows = _inputs(layer, values[name], max(layer.length, _ROWS))
                total[:-1, :-1] += rows.T @ rows
                total[-1, :-1] += rows.sum(axis=0)
                total[-1, -1] += len(rows)
    for total in sums:
        total[:-1, -1] = total[-1, :-1]
        total /= max(total[-1, -1], 1)
        total[np.diag_indices_from(total)] *= 1 + _DAMPING
    return sums


def _inputs(layer: _Layer, data: Array, most: int) -> npt.NDArray[np.float32]:
    """Return what a layer multiplies its weights with, one row for each output value; about ``most`` rows, evenly spread."""
    if layer.node.op_type != "Conv":
        rows = data.reshape(-1, layer.length)
        return rows[:: max(1, len(rows) // most)]
    height, width = _value(layer.weight).shape[2:]
    top, left, bottom, right = _ints(layer, "pads", (0, 0, 0, 0))
    down, across = _ints(layer, "strides", (1, 1))
    tall, wide = _ints(layer, "dilations", (1, 1))
    padded = np.pad(data, ((0, 0), (0, 0), (top, bottom), (left, right)))
    window = ((height - 1) * tall + 1, (width - 1) * wide + 1)
    views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(2, 3))
    views = views[:, :, ::down, ::across, ::tall, ::wide]
    apart = max(1, isqrt(len(views) * prod(views.shape[2:4]) // most))
    views = views[:, :, ::apart, ::apart]  # before anything is copied
    return np.ascontiguousarray(views.transpose(0, 2, 3, 1, 4, 5)).reshape(-1, layer.length)


def _ints(layer: _Layer, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = layer.node.attributes.get(name)
    return default if attribute is None else tuple(attribute.as_ints())


def _rounded(layer: _Layer, moments: npt.NDArray[np.float64]) -> dict[str, Half]:
    """Return a layer's weight and bias in FP16, by name."""
    weight, bias = _value(layer.weight), None if layer.bias is None else _value(layer.bias)
    by_column = layer.node.op_type == "MatMul" or (
        layer.node.op_type == "Gemm" and not layer.node.attributes.get_int("transB", 0)
    )
    rows = (weight.T if by_column else weight).reshape(-1, layer.length)
    if bias is None:
        half = round_together(rows, moments[:-1, :-1])
    else:
        both = round_together(np.column_stack([rows, bias.ravel()]), moments)
        half, last = both[:, :-1], both[:, -1]
    values = {str(layer.weight.name): np.ascontiguousarray(half.T) if by_column else half.reshape(weight.shape)}
    if layer.bias is not None and bias is not None:
        values[str(layer.bias.name)] = last.reshape(bias.shape)
    return values


def _value(initializer: ir.Value) -> Array:
    assert initializer.const_value is not None
    value: Array = initializer.const_value.numpy()
    return value
