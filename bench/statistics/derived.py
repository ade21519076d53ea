"""Figures that are computed from several contestants' latencies, such as a head's time from differences, with intervals."""

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


def derived(
    contestants: Mapping[str, Nested],
    figures: Callable[[Locations], Mapping[str, Samples]],
    *,
    seed: int,
    positive: bool = False,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Estimate figures from contestants that ran side by side, with hierarchical bootstrap intervals.

    As :func:`~mtl_deploy.bench.statistics.nested.ratio` does, processes are drawn first, then rounds, then calls;
    processes and rounds are the same ones for all contestants, so what slows all down does not widen the interval of a difference.
    For few processes the interval is stretched about the estimate, on a linear scale: a difference may be zero; on a logarithmic
    one for figures that are ``positive``.

    Args:
        contestants: samples by process, round and call, by name; of the same processes and rounds (surplus rounds are left out).
        figures: computes figures by name from the contestants' locations; it is given arrays and works on them elementwise.
        seed: of the resampling.
        positive: whether figures are ratios, or others that are never zero or less.
        resamples: number of bootstrap samples.
    """
    alike = _common(contestants)
    shape = [len(rounds) for rounds in next(iter(alike.values()))]
    rng = np.random.default_rng(seed)
    chosen, kept = draw_rounds(shape, rng, resamples)
    drawn = {
        name: average(resampled_medians([samples for rounds in nested for samples in rounds], chosen, rng), kept)
        for name, nested in alike.items()
    }
    values = figures({name: np.array([location(nested)]) for name, nested in alike.items()})
    stretch = max(map(stretch_for_few, alike.values()))
    return {
        name: _interval(float(values[name][0]), samples, stretch, positive) for name, samples in figures(drawn).items()
    }


def locations(contestants: Mapping[str, Nested], *, seed: int) -> dict[str, Interval]:
    """Estimate each contestant's :func:`~mtl_deploy.bench.statistics.nested.location` in milliseconds, with its interval."""
    return derived(contestants, lambda found: found, seed=seed)


def _interval(value: float, drawn: Samples, stretch: float, positive: bool) -> Interval:
    if positive and value > 0 and drawn.min() > 0:
        found = _interval(math.log(value), np.log(drawn), stretch, False)
        return Interval(value, math.exp(found.low), math.exp(found.high))
    low, high = np.quantile(drawn - value, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, value + stretch * min(float(low), 0.0), value + stretch * max(float(high), 0.0))


def _common(contestants: Mapping[str, Nested]) -> dict[str, Nested]:
    """Return the contestants with the processes and rounds that all of them have."""
    processes = min(len(nested) for nested in contestants.values())
    counts = [min(len(nested[i]) for nested in contestants.values()) for i in range(processes)]
    kept = [i for i in range(processes) if counts[i]]
    if not kept:
        raise ValueError("the contestants have no round in common")
    return {name: [list(nested[i][: counts[i]]) for i in kept] for name, nested in contestants.items()}
