"""How far the outputs of a graph or an engine may be from the network's own.

Errors are measured relative to a task's *spread*: how much its values vary over the images
(:mod:`mtl_deploy.calibration.observe.spread`). :mod:`mtl_deploy.export.verification.tensor_errors` explains how they are measured.
"""

from __future__ import annotations

from collections.abc import Mapping

GRAPHS = {"fp32": 1e-4, "fp16": 1e-2}
"""Error allowed by precision, as a share of the spread (of 1 for probabilities). FP32 graphs differ from PyTorch only in the order
of their sums, so the largest error of each image counts. FP16 graphs round to 11 bits, so the root mean square counts."""
ENGINES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1}
"""The same for engines. It is wider than for graphs: a GPU sums in another order (Winograd convolutions among them), and FP16
engines may accumulate in FP16, which the emulated graph does not."""
TF32 = 1e-2
"""For FP32 engines where TF32 was allowed: it has 10 bits of mantissa."""

FLOORS = 4.0
"""How many times PyTorch's own float32 error (the noise floor) an FP32 result may be off, however small the spread is."""
LEAST_SCALE = 1e-3
"""Errors of a constant output are relative to its largest value, but to no less than this."""


def tolerance_of(precision: str, chosen: Mapping[str, float], defaults: Mapping[str, float]) -> float:
    """Return the error that is allowed at a precision, as a share of a task's spread.

    Args:
        precision: of the artifact.
        chosen: what the user chose, by precision; this wins.
        defaults: by precision.
    """
    return chosen.get(precision, defaults[precision])
