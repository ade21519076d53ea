"""Figures derived from contestants' latencies, with intervals: ratios, means, a head's time as a difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np

from .nested import Interval, Nested, Samples, location
from .uncertainty import Uncertainty, of_independent, of_series

Locations = Mapping[str, Samples]
Figures = Callable[[Locations], Mapping[str, Samples]]


def derived(
    contestants: Mapping[str, Nested], figures: Figures, *, positive: bool = False, paired: bool = True
) -> dict[str, Interval]:
    """Estimate figures from contestants' locations, with intervals by the jackknife over starts: the one place that makes them.

    Calls of one round are alike, and rounds of one process, so neither is an independent sample: starts are. Each start is left
    out once; how much a figure changes by that gives it a value for each start, and Student's t interval is taken over these
    (Tukey: Bias and Confidence in Not-quite Large Samples, Annals of Mathematical Statistics 29, 1958; Efron, Tibshirani: An
    Introduction to the Bootstrap, chapter 11). For a ratio that is the t interval of the log ratio of each start. What happens
    within a start need not be modelled: whatever the noise of its rounds and calls does, it does to the start's value. With one
    process its rounds take the starts' place, as a series whose neighbours may be alike
    (:func:`~mtl_deploy.bench.statistics.uncertainty.of_series`), and the interval says nothing about another start.

    ``python examples/benchmark_coverage.py`` prints how often such intervals hold the truth.

    Args:
        contestants: samples by process, round and call, by name.
        figures: computes figures by name from the contestants' locations; it is given arrays and works on them elementwise.
        positive: whether figures are ratios, or others that are never zero or less; their intervals are made on a logarithmic
            scale.
        paired: whether the contestants ran side by side, in the same processes and rounds (surplus rounds are left out): what slows
            all of them down then does not widen the interval. Otherwise each contestant's starts are left out on their own.
    """
    nested = _common(contestants) if paired else contestants
    full = {name: np.array([location(processes)]) for name, processes in nested.items()}
    values = {name: float(value[0]) for name, value in figures(full).items()}
    left_out = {name: _without_each(processes) for name, processes in nested.items()}
    groups = [list(nested)] if paired else [[name] for name in nested]
    series = {name: len(processes) == 1 for name, processes in nested.items()}
    parts: list[Mapping[str, Samples]] = []
    for group in groups:
        n = len(left_out[group[0]])
        parts.append(figures({name: left_out[name] if name in group else np.repeat(full[name], n) for name in nested}))
    found = {}
    for name, value in values.items():
        log = positive and value > 0 and all(float(part[name].min(initial=1.0)) > 0 for part in parts)
        uncertainties = [
            _uncertainty(value, part[name], log=log, series=series[group[0]])
            for group, part in zip(groups, parts, strict=True)
        ]
        half = reduce(Uncertainty.__add__, uncertainties).half_width
        found[name] = (
            Interval(value, value * math.exp(-half), value * math.exp(half))
            if log
            else Interval(value, value - half, value + half)
        )
    return found


def ratio(numerator: Nested, denominator: Nested, *, paired: bool = True) -> Interval:
    """Estimate the ratio of two contestants' :func:`~mtl_deploy.bench.statistics.nested.location`, with its interval.

    Args:
        numerator: samples by process, round and call.
        denominator: likewise.
        paired: whether both have the same processes and rounds, side by side; see :func:`derived`.

    Raises:
        ValueError: paired samples have different numbers of rounds.
    """
    counts = [[len(rounds) for rounds in nested] for nested in (numerator, denominator)]
    if paired and counts[0] != counts[1]:
        raise ValueError(f"paired samples with different rounds: {counts[0]} and {counts[1]}")
    found = derived(
        {"numerator": numerator, "denominator": denominator},
        lambda of: {"ratio": of["numerator"] / of["denominator"]},
        positive=True,
        paired=paired,
    )
    return found["ratio"]


def mean(nested: Nested) -> Interval:
    """Estimate the mean latency of a call, with an interval over starts, or over the rounds of one process.

    Args:
        nested: samples by process, round and call.
    """
    value = float(np.mean(np.concatenate([samples for rounds in nested for samples in rounds])))
    means = [[np.array([samples.mean()]) for samples in rounds] for rounds in nested]
    found = derived({"mean": means}, dict, positive=True)["mean"]
    return Interval(value, value * (found.low / found.value), value * (found.high / found.value))


def locations(contestants: Mapping[str, Nested]) -> dict[str, Interval]:
    """Estimate each contestant's :func:`~mtl_deploy.bench.statistics.nested.location` in milliseconds, with its interval."""
    return derived(contestants, lambda found: found)


def log_uncertainty(nested: Nested) -> Uncertainty:
    """Return the uncertainty of the logarithm of a location: what a ratio of two runs is made of."""
    values = np.array([location(nested)])
    return _uncertainty(float(values[0]), _without_each(nested), log=True, series=len(nested) == 1)


def _without_each(nested: Nested) -> Samples:
    """Return the location without each process in turn, or of one process without each round, ``(n,)``; empty of one round."""
    medians = [np.array([float(np.median(samples)) for samples in rounds]) for rounds in nested]
    units = medians[0] if len(medians) == 1 else np.array([rounds.mean() for rounds in medians])
    if len(units) == 1:
        return np.array([])
    others: Samples = (units.sum() - units) / (len(units) - 1)
    return others


def _uncertainty(value: float, without: Samples, *, log: bool, series: bool) -> Uncertainty:
    """Return a figure's uncertainty from what it is without each start."""
    n = len(without)
    estimate, others = (math.log(value), np.log(without)) if log else (value, without)
    pseudo_values = n * estimate - (n - 1) * others
    return of_series(pseudo_values) if series else of_independent(pseudo_values)


def _common(contestants: Mapping[str, Nested]) -> dict[str, Nested]:
    """Return the contestants with the processes and rounds that all of them have."""
    processes = min(len(nested) for nested in contestants.values())
    counts = [min(len(nested[i]) for nested in contestants.values()) for i in range(processes)]
    kept = [i for i in range(processes) if counts[i]]
    if not kept:
        raise ValueError("the contestants have no round in common")
    return {name: [list(nested[i][: counts[i]]) for i in kept] for name, nested in contestants.items()}
