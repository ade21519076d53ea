"""Figures from samples: quantiles with the interval that the sample supports, ratios with a bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]
CONFIDENCE = 0.95
Nested = Sequence[Sequence[Samples]]
"""Latencies by process, by round, of each call."""
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


def location(nested: Nested) -> float:
    """Return what a ratio compares: the mean over processes of the mean over rounds of each round's median.

    A median within a round shuts out single interruptions, the means keep in what changes from round to round and from one start of
    the process to the next.
    """
    return float(np.mean([np.mean([np.median(samples) for samples in rounds]) for rounds in nested]))


def mean(nested: Nested, *, seed: int, resamples: int = 2000) -> Interval:
    """Estimate the mean latency of a call, with a bootstrap interval over processes and rounds.

    Args:
        nested: samples by process, round and call.
        seed: of the resampling.
        resamples: number of bootstrap samples.
    """
    means = [np.array([float(samples.mean()) for samples in rounds]) for rounds in nested]
    value = float(np.mean(np.concatenate([samples for rounds in nested for samples in rounds])))
    flat, centre = np.concatenate(means), float(np.mean([rounds.mean() for rounds in means]))
    rng = np.random.default_rng(seed)
    chosen, kept = draw_rounds([len(rounds) for rounds in nested], rng, resamples)
    low, high = _ends(average(flat[chosen], kept), centre, stretch_for_few(nested))
    return Interval(value, low * value, high * value)


def ratio(numerator: Nested, denominator: Nested, *, seed: int, paired: bool = True, resamples: int = 4000) -> Interval:
    """Estimate the ratio of two contestants' :func:`location`, with a hierarchical bootstrap interval.

    Calls of one round are alike, and rounds of one process, so neither is an independent sample. Processes are resampled first,
    then rounds within each, then calls within those: the percentile interval for nested measurements of Kalibera, Jones: Rigorous
    Benchmarking in Reasonable Time, ISMM 2013, and Davison, Hinkley: Bootstrap Methods and their Application, section 3.8. From
    few processes a percentile interval is too narrow; how much is known for means of normal values, and by that much the interval
    is stretched about the estimate, on a logarithmic scale: what Hesterberg's expanded percentile interval does (What Teachers
    Should Know About the Bootstrap, The American Statistician 69(4), 2015), whose quantiles cannot be drawn from three processes.
    With one process its rounds are the highest level, and the interval says nothing of another start.

    Args:
        numerator: samples by process, round and call.
        denominator: likewise.
        seed: of the resampling.
        paired: whether both have the same processes and rounds, side by side: the same ones are then drawn for both, so that what
            slows both down does not widen the interval. Otherwise each is drawn on its own.
        resamples: number of bootstrap samples.
    """
    counts = [[len(rounds) for rounds in nested] for nested in (numerator, denominator)]
    if paired and counts[0] != counts[1]:
        raise ValueError(f"paired samples with different rounds: {counts[0]} and {counts[1]}")
    flat = [[samples for rounds in nested for samples in rounds] for nested in (numerator, denominator)]
    rng = np.random.default_rng(seed)
    ratios = []
    at_once = max(1, _DRAWS_AT_ONCE // max(len(count) * max(count) for count in counts))
    for done in range(0, resamples, at_once):
        number = min(at_once, resamples - done)
        above = draw_rounds(counts[0], rng, number)
        below = above if paired else draw_rounds(counts[1], rng, number)
        top, bottom = (
            average(resampled_medians(rounds, chosen, rng), kept)
            for rounds, (chosen, kept) in zip(flat, (above, below), strict=True)
        )
        ratios.append(top / bottom)
    value = location(numerator) / location(denominator)
    low, high = _ends(np.concatenate(ratios), value, max(stretch_for_few(numerator), stretch_for_few(denominator)))
    return Interval(value, low * value, high * value)


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


def _ends(drawn: Samples, value: float, stretch: float) -> tuple[float, float]:
    """Return the interval's ends as multiples of the estimate."""
    low, high = np.quantile(np.log(drawn / value), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return math.exp(stretch * min(low, 0.0)), math.exp(stretch * max(high, 0.0))


_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom."""
_Z = 1.960


def stretch_for_few(nested: Nested) -> float:
    """Return how much too narrow a percentile interval over the highest level is, for means of normal values.

    Drawing n of n with replacement has (n - 1) / n of the variance, and knows nothing of the variance's own uncertainty.
    """
    n = len(nested) if len(nested) > 1 else len(nested[0])
    if n < 2:
        return 1.0
    t = _T[n - 2] if n - 2 < len(_T) else _Z + 2.42 / (n - 1)  # to 0.01, from 10 degrees of freedom on
    return math.sqrt(n / (n - 1)) * t / _Z


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
    """Return the standard deviation of the rounds' medians within their process, over their mean: how much the machine changed."""
    medians = [np.array([float(np.median(samples)) for samples in rounds]) for rounds in nested]
    degrees = sum(len(rounds) - 1 for rounds in medians)
    if degrees == 0:
        return 0.0
    variance = sum(float(((rounds - rounds.mean()) ** 2).sum()) for rounds in medians) / degrees
    return math.sqrt(variance) / float(np.mean(np.concatenate(medians)))


def process_spread(nested: Nested) -> float:
    """Return the standard deviation of the processes' locations over their mean: what a restart changes, rounds' noise included."""
    found = [location([rounds]) for rounds in nested]
    return float(np.std(found, ddof=1) / np.mean(found)) if len(found) > 1 else 0.0
