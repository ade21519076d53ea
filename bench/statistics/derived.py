"""Figures derived from contestants' latencies, with intervals: ratios, means, a head's time as a difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from .nested import (
    CONFIDENCE,
    Interval,
    Nested,
    Samples,
    average,
    draw_rounds,
    location,
    resampled_medians,
    stretch_for_few,
)

Locations = Mapping[str, Samples]
RESAMPLES = 2000
_DRAWS_AT_ONCE = 1 << 20  # keeps memory small, however long the measurement was


def derived(
    contestants: Mapping[str, Nested],
    figures: Callable[[Locations], Mapping[str, Samples]],
    *,
    seed: int,
    positive: bool = False,
    paired: bool = True,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Estimate figures from contestants' locations, with hierarchical bootstrap intervals: the one place that makes them.

    Calls of one round are alike, and rounds of one process, so neither is an independent sample. Processes are resampled first,
    then rounds within each, then calls within those: the percentile interval for nested measurements of Kalibera, Jones: Rigorous
    Benchmarking in Reasonable Time, ISMM 2013, and Davison, Hinkley: Bootstrap Methods and their Application, section 3.8. From
    few processes a percentile interval is too narrow; by how much is known for means of normal values, and by that much the
    interval is stretched about the estimate: what Hesterberg's expanded percentile interval does (What Teachers Should Know About
    the Bootstrap, The American Statistician 69(4), 2015), whose quantiles cannot be drawn from three processes. It is stretched on
    a linear scale, as a difference may be zero; on a logarithmic one for figures that are ``positive``. With one process its rounds
    are the highest level, and the interval says nothing about another start.

    Args:
        contestants: samples by process, round and call, by name.
        figures: computes figures by name from the contestants' locations; it is given arrays and works on them elementwise.
        seed: of the resampling.
        positive: whether figures are ratios, or others that are never zero or less.
        paired: whether the contestants ran side by side, in the same processes and rounds (surplus rounds are left out): the same
            ones are then drawn for all, so that what slows all of them down does not widen the interval. Otherwise each
            contestant's are drawn on their own.
        resamples: number of bootstrap samples.
    """
    nested = _common(contestants) if paired else contestants
    rng = np.random.default_rng(seed)
    most = max(len(processes) * max(map(len, processes)) for processes in nested.values())
    at_once = max(1, _DRAWS_AT_ONCE // most)
    parts = [
        figures(_drawn(nested, rng, min(at_once, resamples - done), paired)) for done in range(0, resamples, at_once)
    ]
    values = figures({name: np.array([location(processes)]) for name, processes in nested.items()})
    stretch = max(map(stretch_for_few, nested.values()))
    return {
        name: _interval(float(values[name][0]), np.concatenate([part[name] for part in parts]), stretch, positive)
        for name in values
    }


def ratio(
    numerator: Nested, denominator: Nested, *, seed: int, paired: bool = True, resamples: int = 2 * RESAMPLES
) -> Interval:
    """Estimate the ratio of two contestants' :func:`~mtl_deploy.bench.statistics.nested.location`, with its interval.

    Args:
        numerator: samples by process, round and call.
        denominator: likewise.
        seed: of the resampling.
        paired: whether both have the same processes and rounds, side by side; see :func:`derived`.
        resamples: number of bootstrap samples.

    Raises:
        ValueError: paired samples have different numbers of rounds.
    """
    counts = [[len(rounds) for rounds in nested] for nested in (numerator, denominator)]
    if paired and counts[0] != counts[1]:
        raise ValueError(f"paired samples with different rounds: {counts[0]} and {counts[1]}")
    found = derived(
        {"numerator": numerator, "denominator": denominator},
        lambda of: {"ratio": of["numerator"] / of["denominator"]},
        seed=seed,
        positive=True,
        paired=paired,
        resamples=resamples,
    )
    return found["ratio"]


def mean(nested: Nested, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Estimate the mean latency of a call; processes and rounds are resampled, the calls of a round count by their mean.

    Args:
        nested: samples by process, round and call.
        seed: of the resampling.
        resamples: number of bootstrap samples.
    """
    value = float(np.mean(np.concatenate([samples for rounds in nested for samples in rounds])))
    means = [[np.array([samples.mean()]) for samples in rounds] for rounds in nested]
    found = derived({"mean": means}, dict, seed=seed, positive=True, resamples=resamples)["mean"]
    return Interval(value, value * (found.low / found.value), value * (found.high / found.value))


def locations(contestants: Mapping[str, Nested], *, seed: int) -> dict[str, Interval]:
    """Estimate each contestant's :func:`~mtl_deploy.bench.statistics.nested.location` in milliseconds, with its interval."""
    return derived(contestants, lambda found: found, seed=seed)


def _drawn(contestants: Mapping[str, Nested], rng: np.random.Generator, number: int, paired: bool) -> Locations:
    """Return each contestant's location in a number of bootstrap samples, ``(number,)`` by name."""
    shapes = {name: [len(rounds) for rounds in nested] for name, nested in contestants.items()}
    if paired:
        draws = dict.fromkeys(shapes, draw_rounds(next(iter(shapes.values())), rng, number))
    else:
        draws = {name: draw_rounds(shape, rng, number) for name, shape in shapes.items()}
    return {
        name: average(resampled_medians([samples for rounds in nested for samples in rounds], chosen, rng), kept)
        for (name, nested), (chosen, kept) in zip(contestants.items(), draws.values(), strict=True)
    }


def _interval(value: float, drawn: Samples, stretch: float, positive: bool) -> Interval:
    ends = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    if positive and value > 0 and drawn.min() > 0:
        low, high = np.quantile(np.log(drawn / value), ends)
        return Interval(
            value, value * math.exp(stretch * min(float(low), 0.0)), value * math.exp(stretch * max(float(high), 0.0))
        )
    low, high = np.quantile(drawn - value, ends)
    return Interval(value, value + stretch * min(float(low), 0.0), value + stretch * max(float(high), 0.0))


def _common(contestants: Mapping[str, Nested]) -> dict[str, Nested]:
    """Return the contestants with the processes and rounds that all of them have."""
    processes = min(len(nested) for nested in contestants.values())
    counts = [min(len(nested[i]) for nested in contestants.values()) for i in range(processes)]
    kept = [i for i in range(processes) if counts[i]]
    if not kept:
        raise ValueError("the contestants have no round in common")
    return {name: [list(nested[i][: counts[i]]) for i in kept] for name, nested in contestants.items()}
