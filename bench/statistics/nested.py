"""Samples of calls in rounds in processes: quantiles, locations, spreads, and how such samples are resampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .student import NORMAL, student_t

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


Drawn = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]


def draw_rounds(counts: Sequence[int], rng: np.random.Generator, number: int) -> Drawn:
    """Draw processes with replacement, and within each as many of its rounds as it has.

    Args:
        counts: rounds of each process.
        rng: draws.
        number: of draws.

    Returns:
        Indices of rounds, counted over all processes, ``(number, processes, most rounds)``; and which of them count: a process may
        have fewer rounds than another.
    """
    sizes = np.array(counts)
    first = np.cumsum(sizes) - sizes
    processes = rng.integers(0, len(sizes), (number, len(sizes)))
    n = sizes[processes][:, :, None]
    places = np.arange(sizes.max())[None, None, :]
    chosen = first[processes][:, :, None] + (rng.random((number, len(sizes), int(sizes.max()))) * n).astype(np.int64)
    return chosen, np.broadcast_to(places < n, chosen.shape)


def average(values: Samples, kept: npt.NDArray[np.bool_]) -> Samples:
    """Return the mean over processes of the mean over rounds, ``(number,)``."""
    rounds: Samples = np.where(kept, values, 0.0).sum(axis=2) / kept.sum(axis=2)
    averaged: Samples = rounds.mean(axis=1)
    return averaged


def stretch_for_few(nested: Nested) -> float:
    """Return how much too narrow a percentile interval over the highest level is, for means of normal values.

    Drawing n of n with replacement has (n - 1) / n of the variance, and knows nothing of the variance's own uncertainty.
    """
    n = len(nested) if len(nested) > 1 else len(nested[0])
    if n < 2:
        return 1.0
    return math.sqrt(n / (n - 1)) * student_t(n - 1) / NORMAL


def resampled_medians(rounds: Sequence[Samples], chosen: npt.NDArray[np.int64], rng: np.random.Generator) -> Samples:
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
