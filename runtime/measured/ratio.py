"""How many times as long one thing takes as another, from rounds in which both ran, and how certain that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

CONFIDENCE = 0.99
CLEAR = 0.97
"""What is clearly faster takes less than this share of the time, at the upper end of the interval."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times.

    Attributes:
        median: over the rounds.
        low: the lower end of its 99 % interval; of fewer than eight rounds the smallest ratio.
        high: the upper end.
    """

    median: float
    low: float
    high: float

    @property
    def is_clearly_less(self) -> bool:
        """Whether the first is faster by more than the noise, and by enough to matter."""
        return self.high < CLEAR

    def __str__(self) -> str:
        """For people."""
        return f"{self.median:.2f} times, 99 % interval {self.low:.2f} to {self.high:.2f}"


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Compare times of the same rounds.

    The interval is that of a median by order statistics, which assumes nothing about how times are distributed
    (David and Nagaraja, Order Statistics, 2003, section 7.1). Noise that lasts for longer than a round is in both times.

    Args:
        first: milliseconds, one for each round.
        second: those that they are compared with.
    """
    found = sorted(one / other for one, other in zip(first, second, strict=True))
    count = len(found)
    outside, inside = 0.0, 0  # the chance that the median lies beyond so many ratios, on one side
    while inside < (count - 1) // 2:
        outside += comb(count, inside) / 2**count
        if 2 * outside > 1 - CONFIDENCE:
            break
        inside += 1
    cut = max(inside - 1, 0)
    return Ratio(median(found), found[cut], found[count - 1 - cut])
