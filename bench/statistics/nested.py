"""Samples of calls in rounds in processes: quantiles, locations and spreads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .uncertainty import of_independent, of_series

Samples = npt.NDArray[np.float64]
CONFIDENCE = 0.95
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
"""Of latency, by the names that results give them."""
ENOUGH_PROCESSES = 3
"""Starts from which an interval knows something of what a restart changes."""
Nested = Sequence[Sequence[Samples]]
"""Latencies of calls, by process and round."""


@dataclass(frozen=True)
class Interval:
    """A figure and the range that contains its true value with 95 % confidence.

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


def nested_quantile(nested: Nested, share: float) -> Interval | None:
    """Estimate a quantile of all calls, of starts that may differ; None where the calls are too few to bound it.

    The interval is Woodruff's (Confidence Intervals for Medians and Other Position Measures, Journal of the American Statistical
    Association 47, 1952), for a sample in clusters: Student's t interval of the share of calls below the estimate, over the starts'
    shares, is turned back into latencies at the quantiles of its two ends. It assumes that starts are independent of one another,
    and nothing of the calls of one start. An end stops at the smallest or the largest call. With one process its rounds take the
    starts' place, as in :func:`~mtl_deploy.bench.statistics.derived.derived`.

    Args:
        nested: samples by process, round and call.
        share: between 0 and 1; 0.99 for p99.
    """
    clusters = nested[0] if len(nested) == 1 else [np.concatenate(list(rounds)) for rounds in nested]
    ordered = np.sort(np.concatenate(list(clusters)))
    if quantile(ordered, share) is None:
        return None
    n = len(ordered)
    value = float(np.quantile(ordered, share))
    half = 0.0
    sizes = np.array([len(cluster) for cluster in clusters])
    for below in (
        np.array([np.count_nonzero(cluster < value) for cluster in clusters]),
        np.array([np.count_nonzero(cluster <= value) for cluster in clusters]),  # both: values may be equal
    ):
        excess = (below - below.sum() / n * sizes) * (len(sizes) / n)  # of a share, where clusters are of unequal size
        found = of_series(excess) if len(nested) == 1 else of_independent(excess)
        half = max(half, found.half_width)
    low, high = math.floor((share - half) * n), math.ceil((share + half) * n)
    return Interval(value, float(ordered[max(low, 0)]), float(ordered[min(high, n - 1)]))


def _binomial_cdf(n: int, share: float) -> Samples:
    """Return P(X <= k) for k = 0..n and X ~ binomial(n, share)."""
    k = np.arange(n + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choose = log_factorials[n] - log_factorials[k] - log_factorials[n - k]
    mass = np.exp(log_choose + k * math.log(share) + (n - k) * math.log1p(-share))
    cumulative: Samples = np.minimum(np.cumsum(mass), 1.0)
    return cumulative


def location(nested: Nested) -> float:
    """Return what contestants are compared by: the mean over processes of the mean over rounds of each round's median.

    The median within a round ignores single interruptions; the means keep what changes from round to round and from one start of
    the process to the next.
    """
    return float(np.mean([np.mean([np.median(samples) for samples in rounds]) for rounds in nested]))


def spread(nested: Nested) -> float:
    """Return the standard deviation of the rounds' medians within their process, over their mean: how much the machine varied."""
    medians = [np.array([float(np.median(samples)) for samples in rounds]) for rounds in nested]
    degrees = sum(len(rounds) - 1 for rounds in medians)
    if degrees == 0:
        return 0.0
    variance = sum(float(((rounds - rounds.mean()) ** 2).sum()) for rounds in medians) / degrees
    return math.sqrt(variance) / float(np.mean(np.concatenate(medians)))


def process_spread(nested: Nested) -> float:
    """Return the standard deviation of the processes' locations over their mean: what a restart changes, and rounds' noise."""
    found = [location([rounds]) for rounds in nested]
    return float(np.std(found, ddof=1) / np.mean(found)) if len(found) > 1 else 0.0
