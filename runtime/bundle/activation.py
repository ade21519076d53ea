"""What a network has already applied to an output: which activations there are, how to apply and invert them."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Activation = Literal["none", "sigmoid", "softmax", "log_softmax"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
GIVES_PROBABILITIES: frozenset[Activation] = frozenset(("sigmoid", "softmax"))

FLOOR = -80.0
"""Log-probabilities below it count as equal: the smallest normal number of float32 is e to the -87."""
CEILING = 5.0
"""Log-odds of a sigmoid above it count as equal: float32 has steps of 6e-8 below 1, which are 9e-6 in the log-odds there."""
BOTTOM = -10.0
"""Log-odds of a sigmoid below it count as equal: float32 could tell them apart, but runtimes compute a sigmoid to about 6e-8,
however small it is (ONNX Runtime gives 0 for all below -18), which is 1e-3 in the log-odds there."""


def probabilities(activation: Activation, values: npt.NDArray[Any], axis: int = 1) -> npt.NDArray[Any]:
    """Return the probabilities that raw outputs represent.

    Args:
        activation: what the network has applied to them. After ``none`` a single value gets a sigmoid, several a softmax.
        values: raw outputs, floats; the classes lie along ``axis``.
        axis: of the classes.

    Returns:
        the same shape and type. Independent sigmoids stay as they are and need not sum to 1.
    """
    if activation in GIVES_PROBABILITIES:
        return values
    if activation == "log_softmax":
        found: npt.NDArray[Any] = np.exp(values)
        return found
    if values.shape[axis] == 1:
        small = np.exp(-np.abs(values))  # never overflows
        return np.asarray(np.where(values >= 0, 1 / (1 + small), small / (1 + small)), values.dtype)
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), values.dtype)


def log_odds(activation: Activation, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the logits that probabilities were computed from, as far as they can be recovered from saturated values.

    After a softmax, log-probabilities: the logits up to a constant that all classes share. They keep their digits however
    sure the network is, since float32 holds small numbers as precisely as large ones; below :data:`FLOOR` they are clipped to it.
    After a sigmoid, ``log(p / (1 - p))``, from :data:`BOTTOM` to :data:`CEILING`: beyond, p or 1 - p has too few digits.

    Args:
        activation: ``sigmoid`` or ``softmax``.
        values: probabilities; a NaN stays one.
    """
    numbers = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(np.maximum(numbers, 0.0))
        if activation == "sigmoid":
            odds: npt.NDArray[np.float64] = np.clip(found - np.log1p(-np.minimum(numbers, 1.0)), BOTTOM, CEILING)
            return odds
    return np.maximum(found, FLOOR)
