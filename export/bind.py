"""Binding names to graph outputs by value.

Exporters and dict-returning networks can reorder outputs without a word (pytorch/pytorch#165758), so a name is given to a graph's
output only because that output computes what the network's own output of that name computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import TraceError

FloatArray = npt.NDArray[np.floating]

RELATIVE = 1e-3  # of the largest value; FP32 graphs of deep networks stay a hundredfold below


def bind_by_value(outputs: Sequence[FloatArray], references: Mapping[str, FloatArray]) -> list[int]:
    """Return, for each reference, the position of the graph output that equals it.

    Args:
        outputs: the graph's outputs on some inputs, in the graph's order.
        references: the network's own outputs on the same inputs, by task, ``(N, size)``.

    Raises:
        TraceError: a task has no graph output that equals it, or two tasks cannot be told apart and are not at
            their own positions either.
    """
    bound = [_find(name, reference, outputs) for name, reference in references.items()]
    taken: dict[int, str] = {}
    for name, position in zip(references, bound, strict=True):
        if position in taken:
            raise TraceError(
                f"tasks {taken[position]!r} and {name!r} give the same values on every input, so their outputs cannot be "
                "told apart by value; check that both heads are trained, or deploy only one of them"
            )
        taken[position] = name
    return bound


def _find(name: str, reference: FloatArray, outputs: Sequence[FloatArray]) -> int:
    if not np.isfinite(reference).all():
        raise TraceError(
            f"task {name!r}: the network itself gives NaN or infinite values; check its weights and inputs"
        )
    scale = float(np.abs(reference).max())
    errors = [_distance(output, reference) for output in outputs]
    best = int(np.argmin(errors))
    if errors[best] > RELATIVE * max(scale, 1e-6):
        raise TraceError(
            f"task {name!r}: no output of the graph equals the network's (the closest differs by {errors[best]:.3g} at values "
            f"up to {scale:.3g}); the exporter changed the network: does its forward depend on data or on training mode?"
        )
    return best


def _distance(output: FloatArray, reference: FloatArray) -> float:
    if output.size != reference.size or len(output) != len(reference):
        return float("inf")
    return float(np.abs(output.reshape(reference.shape).astype(np.float64) - reference).max())
