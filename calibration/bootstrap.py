"""How sure a difference between two networks is that answered for the same images."""

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
    """Return how much larger the mean of one sample of losses is than that of another on the same images, and its interval.

    Method: the paired percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): images are
    drawn with replacement, and both losses of an image go together. It is too narrow by the factor ``sqrt((n - 1) / n)``, which is
    made good (Hesterberg, What Teachers Should Know About the Bootstrap, 2015). Where losses are right or wrong nothing is drawn:
    see :mod:`.paired_shares`.

    Args:
        losses: ``(N,)``.
        reference: ``(N,)``, on the same images.
        shares: whether a loss is of right or wrong, so that differences are -1, 0 or 1.
        seed: of the drawing.

    Returns:
        The mean difference, and the ends of its 95 % interval; all infinite where a loss is: no budget allows that.
    """
    if not np.isfinite(losses).all() or not np.isfinite(reference).all():
        return math.inf, math.inf, math.inf
    differences = losses - reference
    drop = float(differences.mean())
    size = len(differences)
    if shares:
        low, high = score_interval(float((differences > 0).sum()), float((differences < 0).sum()), size)
        return drop, min(low, drop), max(high, drop)
    means = np.concatenate(list(_resampled_means(differences, np.random.default_rng(seed))))
    means = drop + (means - drop) * math.sqrt(size / max(size - 1, 1))
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return drop, min(float(low), drop), max(float(high), drop)


def _resampled_means(differences: Floats, random: np.random.Generator) -> Iterator[Floats]:
    size = len(differences)
    rows = max(1, _DRAWN_AT_ONCE // size)
    for start in range(0, RESAMPLES, rows):
        drawn = random.integers(0, size, (min(rows, RESAMPLES - start), size))
        yield differences[drawn].mean(axis=1)
