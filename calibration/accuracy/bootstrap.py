"""How certain a difference is between two networks that were run on the same images."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .paired_shares import score_interval

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95

_DRAWN_AT_ONCE = 2**21  # indices; 16 MiB


def paired_interval(losses: Floats, reference: Floats, *, shares: bool, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean difference between two networks' losses on the same images, with its interval.

    Method: the paired bootstrap-t (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12): images are drawn with
    replacement, both losses of an image stay together, and the mean of each draw is divided by its own standard error. Where a few
    images have large losses, each end is wrong about as often as it should be, unlike the upper end of the percentile bootstrap
    (Hesterberg, What Teachers Should Know About the Bootstrap, 2015). Where so few images differ that many draws have none of them,
    an end is infinite. Where an answer is right or wrong nothing is drawn: see
    :mod:`mtl_deploy.calibration.accuracy.paired_shares`.

    Args:
        losses: ``(N,)``.
        reference: ``(N,)``, the other network's losses on the same images.
        shares: whether an answer is right or wrong, so that differences are -1, 0 or 1.
        seed: for drawing.

    Returns:
        The mean difference (``losses`` minus ``reference``) and the ends of its 95 % interval; all infinite if a loss is infinite:
        no budget allows that.
    """
    if not np.isfinite(losses).all() or not np.isfinite(reference).all():
        return math.inf, math.inf, math.inf
    differences = losses - reference
    drop = float(differences.mean())
    size = len(differences)
    if shares:
        low, high = score_interval(float((differences > 0).sum()), float((differences < 0).sum()), size)
        return drop, min(low, drop), max(high, drop)
    error = float(differences.std())
    if error == 0:
        return drop, drop, drop
    scores = np.concatenate(list(_resampled_scores(differences, drop, np.random.default_rng(seed))))
    upper, lower = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    low, high = (drop - error * float(score) for score in (lower, upper))
    return drop, min(low, drop), max(high, drop)


def _resampled_scores(differences: Floats, drop: float, random: np.random.Generator) -> Iterator[Floats]:
    """Yield how many of its own standard deviations each draw's mean lies above the overall one; infinite if all are equal."""
    size = len(differences)
    rows = max(1, _DRAWN_AT_ONCE // size)
    for start in range(0, RESAMPLES, rows):
        drawn = differences[random.integers(0, size, (min(rows, RESAMPLES - start), size))]
        above, spread = drawn.mean(axis=1) - drop, drawn.std(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            yield np.where(above == 0, 0.0, above / spread)
