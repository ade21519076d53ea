"""What a measurement could have detected, and how long one must be to detect something: from the noise that was measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from .student import student_t
from .uncertainty import Uncertainty

POWER = 0.8
"""Probability of detecting a change of the size that is called detectable."""
LEAST_STARTS = 3
MOST_STARTS = 1000


def detectable(noise: Uncertainty) -> float | None:
    """Return the smallest change of a logarithm that is found real with a power of 80 %; None where nothing is known of the noise.

    A change is found real where its 95 % interval excludes none (Bloom: Minimum Detectable Effects: A Simple Way to Report the
    Statistical Power of Experimental Designs, Evaluation Review 19(5), 1995).

    Args:
        noise: of the logarithm of the ratio.
    """
    if not noise.degrees:
        return None
    return (student_t(noise.degrees) + student_t(noise.degrees, POWER)) * math.sqrt(noise.variance)


def with_starts(noise: Uncertainty, starts: int, number: int) -> Uncertainty:
    """Return what the uncertainty of a run's logarithm would be with another number of starts like those that it had."""
    return replace(noise, variance=noise.variance * starts / number, degrees=number - 1)


def starts_to_resolve(noises: tuple[Uncertainty, Uncertainty], starts: tuple[int, int], distance: float) -> int | None:
    """Return how many starts each of two runs needs for the half width of their ratio's interval to be smaller than a distance.

    Args:
        noises: of the logarithms of the two runs.
        starts: that they had; two or more each, since one tells nothing of what a restart changes.
        distance: of the logarithm of the ratio to what is to be told from it.

    Returns:
        a number of starts, or None: more than :data:`MOST_STARTS`.
    """

    def resolved(number: int) -> bool:
        first, second = (with_starts(one, had, number) for one, had in zip(noises, starts, strict=True))
        return (first + second).half_width < distance

    return _first(resolved, 2)


def starts_to_detect(deviation: float, pilot: int, change: float) -> int:
    """Return how many starts each of two runs needs to detect a change of a logarithm with a power of 80 %.

    The deviation is a pilot's estimate, and a pilot of few starts may well have seen too little of it: with Student's quantiles of
    the pilot's own degrees of freedom the power is what it is said to be, whatever the true deviation (Stein: A Two-Sample Test
    for a Linear Hypothesis Whose Power is Independent of the Variance, Annals of Mathematical Statistics 16(3), 1945).

    Args:
        deviation: standard deviation of the logarithm of a start's location.
        pilot: starts that it was estimated from; two or more.
        change: to be detected.

    Returns:
        from :data:`LEAST_STARTS` to :data:`MOST_STARTS`, which may then be too few.
    """

    def enough(number: int) -> bool:
        degrees = min(pilot - 1, 2 * number - 2)  # few starts have an interval of their own that is wide
        factor = student_t(degrees) + student_t(degrees, POWER)
        return number >= 2 * (factor * deviation / change) ** 2

    number = _first(enough, LEAST_STARTS) or MOST_STARTS
    return (
        number if number in (LEAST_STARTS, MOST_STARTS) else number + 1
    )  # the last one is in part what rounding up leaves open


def _first(enough: Callable[[int], bool], least: int) -> int | None:
    """Return the smallest number of starts that is enough, where each larger one is, too; None: more than there may be."""
    low, high = least, MOST_STARTS
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
