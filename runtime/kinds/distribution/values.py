"""The values of a distribution's bins, and its expectation: on a line, or on a circle as the direction of the mean vector.

Sources: expected value over ages, Rothe et al., DEX, ICCV workshops 2015; over angles, Ruiz et al., Fine-Grained Head Pose
Estimation Without Keypoints (HopeNet), CVPR workshops 2018; mean direction, Mardia and Jupp, Directional Statistics, 2000, 2.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.kinds.spaced import listed

Floats = npt.NDArray[np.float64]


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
