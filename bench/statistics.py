"""Figures from samples: quantiles with the interval that the sample supports, ratios with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]
CONFIDENCE = 0.95
ENOUGH_ROUNDS = 10
"""From fewer, a bootstrap interval over rounds holds the truth less often than it says (tests/bench/test_statistics.py)."""
_DRAWS_AT_ONCE = 1 << 20  # keeps memory small however long was measured


@dataclass(frozen=True)
class Interval:
    """A figure and the range that holds its true value with 95 % confidence.

    Attributes:
        value: the estimate.
        low: end of the interval.
        high: end of the interval.
    """

    value: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Return whether a value lies in the interval."""
        return self.low <= value <= self.high


def quantile(samples: Samples, share: float) -> Interval | None:
    """Estimate a quantile with a distribution-free interval; None where the sample is too small to bound it.

    The interval's ends are order statistics: of n independent samples, the number below the true quantile is
    binomial(n, share), so the k-th smallest bounds it with a known probability (David, Nagaraja: Order Statistics, 3rd edition,
    section 7.1). A p99 needs 368 samples, a p90 36.

    Args:
        samples: ``(n,)``, in any order.
        share: between 0 and 1; 0.99 for p99.
    """
    ordered = np.sort(samples)
    tail = (1 - CONFIDENCE) / 2
    cumulative = _binomial_cdf(len(ordered), share)
    low = int(np.searchsorted(cumulative, tail, side="right")) - 1  # the last k with P(at most k lie below) <= tail
    high = int(
        np.searchsorted(cumulative, 1 - tail, side="left")
    )  # the first k with P(at most k lie below) >= 1 - tail
    if low < 0 or high > len(ordered) - 1:
        return None
    return Interval(float(np.quantile(ordered, share)), float(ordered[low]), float(ordered[high]))


def _binomial_cdf(n: int, share: float) -> Samples:
    """Return P(X <= k) for k = 0..n and X ~ binomial(n, share)."""
    k = np.arange(n + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choose = log_factorials[n] - log_factorials[k] - log_factorials[n - k]
    mass = np.exp(log_choose + k * math.log(share) + (n - k) * math.log1p(-share))
    cumulative: Samples = np.minimum(np.cumsum(mass), 1.0)
    return cumulative


def location(rounds: Sequence[Samples]) -> float:
    """Return what a ratio compares: the mean over rounds of each round's median.

    A median within a round shuts out single interruptions, the mean over rounds keeps slow changes of the machine in.
    """
    return float(np.mean([np.median(samples) for samples in rounds]))


def ratio(
    numerator: Sequence[Samples], denominator: Sequence[Samples], *, seed: int, resamples: int = 4000
) -> Interval:
    """Estimate the ratio of two contestants' :func:`location`, with a hierarchical bootstrap interval.

    Calls of one round are alike, so a call is no independent sample. Rounds are resampled first, for both contestants the same
    ones (they ran side by side), then calls within each: the percentile interval for nested measurements of Kalibera, Jones:
    Rigorous Benchmarking in Reasonable Time, ISMM 2013, and Davison, Hinkley: Bootstrap Methods and their Application, section 3.8.
    Resampling both levels counts the noise of the calls twice, so the interval is too wide where a round has few calls; from
    less than :data:`ENOUGH_ROUNDS` rounds it is too narrow.

    Args:
        numerator: each round's samples.
        denominator: each round's samples, of the same rounds.
        seed: of the resampling.
        resamples: number of bootstrap samples.
    """
    rng = np.random.default_rng(seed)
    count = len(numerator)
    at_once = max(1, _DRAWS_AT_ONCE // count)
    ratios = []
    for done in range(0, resamples, at_once):
        chosen = rng.integers(0, count, (min(at_once, resamples - done), count))
        top, bottom = (_resampled_medians(rounds, chosen, rng).mean(axis=1) for rounds in (numerator, denominator))
        ratios.append(top / bottom)
    low, high = np.quantile(np.concatenate(ratios), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(location(numerator) / location(denominator), float(low), float(high))


def _resampled_medians(rounds: Sequence[Samples], chosen: npt.NDArray[np.int64], rng: np.random.Generator) -> Samples:
    """Return, for each chosen round, the median of a bootstrap sample of its calls; each is drawn anew.

    The samples themselves are not drawn: a fast graph has thousands of calls. A draw with replacement from n ordered values is the
    value at ``floor(n U)`` for a uniform U, so the k-th smallest of n draws is the value at ``floor(n B)`` for B the k-th smallest
    of n uniforms, which is Beta(k, n + 1 - k); given it, the next one is the smallest of the n - k uniforms above it (David,
    Nagaraja: Order Statistics, 3rd edition, sections 2.3 and 2.5).

    Args:
        rounds: each round's samples.
        chosen: indices of rounds, of any shape, which is the result's too.
        rng: draws.
    """
    ordered = np.concatenate([np.sort(samples) for samples in rounds])
    sizes = np.array([len(samples) for samples in rounds])
    n, first = sizes[chosen], (np.cumsum(sizes) - sizes)[chosen]
    k = (n + 1) // 2
    position = rng.beta(k, n + 1 - k)
    following = 1 - (1 - position) * rng.random(chosen.shape) ** (1 / np.maximum(n - k, 1))
    lower, upper = (ordered[first + np.minimum((n * u).astype(int), n - 1)] for u in (position, following))
    medians: Samples = np.where(n % 2 == 1, lower, (lower + upper) / 2)
    return medians


def spread(rounds: Sequence[Samples]) -> float:
    """Return the standard deviation of the rounds' medians over their mean: how much the machine changed."""
    medians = [float(np.median(samples)) for samples in rounds]
    return float(np.std(medians, ddof=1) / np.mean(medians)) if len(medians) > 1 else 0.0
