"""How certain the difference between two shares is that were counted on the same images, such as two networks' accuracies.

Few images differ between a network and its quantized copy, often none, and resampling these would claim that none ever will. So the
interval is found by inverting a score test: T. Tango, Equivalence test and confidence interval for the difference in proportions
for the paired-sample design, Statistics in Medicine 17:891-908, 1998. If none of ``n`` images differs, it extends ``z**2 / (n +
z**2)`` to either side: the rule of three (Hanley and Lippman-Hand, JAMA 249:1743-1745, 1983) with 3.8 instead of 3.
"""

from __future__ import annotations

import math

Z = 1.959963984540054
"""Quantile of the normal distribution: 2.5 % lie above. The two ends together leave out 5 %."""

_HALVINGS = 60


def score_interval(worse: float, better: float, images: float, z: float = Z) -> tuple[float, float]:
    """Return the ends of the interval of ``(worse - better) / images``.

    Args:
        worse: number of images on which only the first network is wrong; need not be whole, so that counts can be scaled.
        better: number of images on which only the second network is wrong.
        images: number of all images.
        z: quantile of the normal distribution; the default gives 95 %.

    Returns:
        the lower and the upper end, both between -1 and 1.
    """
    return -_upper(better, worse, images, z), _upper(worse, better, images, z)


def _upper(worse: float, better: float, images: float, z: float) -> float:
    low, high = (worse - better) / images, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _score(middle, worse, better, images) >= -z:
            low = middle
        else:
            high = middle
    return high


def _score(difference: float, worse: float, better: float, images: float) -> float:
    """Return Tango's score of a difference: how many standard deviations the counted difference lies above it."""
    linear = (2 * images - worse + better) * difference - worse - better
    constant = -better * difference * (1 - difference)
    chance = (math.sqrt(max(linear**2 - 8 * images * constant, 0.0)) - linear) / (4 * images)  # of being better
    variance = images * (2 * chance + difference * (1 - difference))
    excess = worse - better - images * difference
    if variance <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return excess / math.sqrt(variance)
