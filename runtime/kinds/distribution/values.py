"""The values of a distribution's bins, and its expectation: on a line, or on a circle as the direction of the mean vector.

Sources: expected value over ages, Rothe et al., DEX, ICCV workshops 2015; over angles, Ruiz et al., Fine-Grained Head Pose
Estimation Without Keypoints (HopeNet), CVPR workshops 2018; mean direction, Mardia and Jupp, Directional Statistics, 2000, 2.2.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

Floats = npt.NDArray[np.float64]

MOST = 1 << 16
"""Of values."""
FORM = "write start:stop:step, such as 0:101:1 for 0 to 100 (the stop is left out), or the values with commas between"
_SLACK = 1e-9  # of a step, by which rounding may move the stop


@lru_cache(maxsize=64)
def listed(values: str | tuple[float, ...]) -> tuple[float, ...]:
    """Return values that are given as they are, or as ``start:stop:step`` without the stop, ``step`` being 1 where it is left out.

    Raises:
        TaskError: they are malformed, or fewer than two or too many.
    """
    if not isinstance(values, str):
        if not all(map(math.isfinite, values)):
            raise TaskError("values: one is not finite")
        return values
    try:
        start, stop, step = (float(part) for part in (values if values.count(":") == 2 else f"{values}:1").split(":"))
        count = math.ceil((stop - start) / step - _SLACK)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise TaskError(f"values {values!r}: {FORM}") from None
    if not 2 <= count <= MOST or not math.isfinite(start + step * count):
        raise TaskError(f"values {values!r} are {max(count, 0)}; give 2 to {MOST}")
    return tuple(start + step * number for number in range(count))


def values_of(task: Task) -> Floats:
    """Return the value of each bin, ``(k,)``."""
    return np.array(listed(task.options.values), np.float64)


def parts(task: Task) -> int:
    """Return how many numbers the expectation has: the mean, or on a circle the mean cosine and sine."""
    return 2 if task.options.circular else 1


def expectation(task: Task, shares: npt.NDArray[np.floating]) -> Floats:
    """Return ``(N, parts)`` from probabilities ``(N, k)``."""
    values = values_of(task)
    if not task.options.circular:
        return np.asarray(shares.astype(np.float64) @ values[:, None])
    turns = 2 * np.pi * values / task.options.period
    return np.asarray(shares.astype(np.float64) @ np.stack([np.cos(turns), np.sin(turns)], axis=1))


def value_of(task: Task, means: npt.NDArray[np.floating]) -> Floats:
    """Return the numbers ``(N,)`` that expectations ``(N, parts)`` are; on a circle one period from the least value on."""
    numbers = means.astype(np.float64)
    if not task.options.circular:
        return numbers[:, 0]
    low, period = values_of(task).min(), task.options.period
    return wrapped(np.arctan2(numbers[:, 1], numbers[:, 0]) * period / (2 * np.pi), low, period)


def wrapped(numbers: Floats, low: float, period: float) -> Floats:
    """Return numbers brought to ``low <= x < low + period`` by whole periods."""
    found = low + np.mod(numbers - low, period)
    return np.asarray(np.where(found >= low + period, low, found))  # where rounding reached the end


def apart(task: Task, one: Floats, other: Floats) -> Floats:
    """Return how far numbers are apart, on the circle where the task has a period."""
    away: Floats = np.abs(one - other)
    period = task.options.period
    if period is None:
        return away
    away = np.mod(away, period)
    return np.asarray(np.minimum(away, period - away))
