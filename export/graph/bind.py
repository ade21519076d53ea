"""Binding names to graph outputs by value.

Exporters and networks that return a dict can reorder outputs silently (pytorch/pytorch#165758), so an output of the graph gets
a name only because it computes what the network's own output of that name computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.observe.spread import spread
from mtl_deploy.export.tolerances import FLOORS
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TraceError

FloatArray = npt.NDArray[np.floating]

_STEP = 2.0**-24  # the absolute precision of a sigmoid in runtimes, however small its value
_LEAST = 1e-6  # the scale of an output that is all zeros
RELATIVE = 1e-3  # of the spread; FP32 graphs of deep networks stay a hundred times below


def bind_by_value(
    outputs: Sequence[FloatArray],
    references: Mapping[str, FloatArray],
    exact: Mapping[str, FloatArray] | None = None,
    tasks: Sequence[Task] = (),
) -> list[int]:
    """Return, for each reference, the position of the graph output that equals it.

    Equal means: different by no more than a thousandth of the output's spread over the images, or by
    :data:`~mtl_deploy.export.tolerances.FLOORS` times the network's own float32 error, whichever is larger;
    for an
    output that does not vary, by a thousandth of its size. Values from 0 to 1 may come from a sigmoid, which runtimes compute to
    about 6e-8 however small it is.

    Args:
        outputs: the graph's outputs on some inputs, in the graph's order.
        references: the network's own outputs in float32 on the same inputs, by task, ``(N, size)``.
        exact: its outputs in float64, if it has any.
        tasks: those that read columns of an output, or share one.

    Raises:
        TraceError: a task has no graph output that equals it, or two tasks have the same one, although they read different ones.
    """
    by_name = {task.name: task for task in tasks}
    bound = []
    for name, reference in references.items():
        columns = by_name[name].columns if name in by_name else None
        bound.append(_find(name, reference, (exact or {}).get(name), [_columns(each, columns) for each in outputs]))
    taken: dict[int, str] = {}
    for name, position in zip(references, bound, strict=True):
        if position in taken:
            first, second = by_name.get(taken[position]), by_name.get(name)
            if first is not None and second is not None and first.output == second.output:
                continue
            raise TraceError(
                f"tasks {taken[position]!r} and {name!r} give the same values on every input, so their outputs cannot be "
                "distinguished by value; check that both heads are trained, or deploy only one of them"
            )
        taken[position] = name
    return bound


def _columns(output: FloatArray, columns: tuple[int, int] | None) -> FloatArray:
    return output if columns is None or output.ndim < 2 else output[:, columns[0] : columns[1]]


def _find(name: str, reference: FloatArray, exact: FloatArray | None, outputs: Sequence[FloatArray]) -> int:
    if not np.isfinite(reference).all():
        raise TraceError(
            f"task {name!r}: the network itself gives NaN or infinite values; check its weights and inputs"
        )
    truth = reference if exact is None else exact
    size = float(np.abs(truth).max())
    floor = max(_distance(reference, truth), float(np.spacing(np.float32(size))))
    varies = float(spread(truth.reshape(len(truth), -1, 1)).max())
    scale = varies if varies > floor else max(size, _LEAST)
    errors = [_distance(output, truth) for output in outputs]
    best = int(np.argmin(errors))
    step = _STEP if truth.min() >= 0 and size <= 1 else 0.0  # may be probabilities
    if errors[best] > max(FLOORS * max(floor, step), RELATIVE * scale):
        raise TraceError(
            f"task {name!r}: no output of the graph equals the network's (the closest differs by {errors[best]:.3g}, while values "
            f"vary by {scale:.3g} and its own float32 differs by {floor:.3g} from float64); the exporter changed the "
            "network: does its forward depend on data or on training mode?"
        )
    return best


def _distance(output: FloatArray, reference: FloatArray) -> float:
    if output.size != reference.size or len(output) != len(reference):
        return float("inf")
    return float(np.abs(output.reshape(reference.shape).astype(np.float64) - reference).max())
