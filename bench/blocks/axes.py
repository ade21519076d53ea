"""Axes: ticks at round numbers, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .kinds import significant

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 4, 6), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
_CLOSEST = 0.1  # of the axis between two labels: 30 px on a phone


@dataclass(frozen=True)
class Axis:
    """A scale.

    Attributes:
        low: its start.
        high: its end.
        ticks: between them.
        log: whether equal factors take equal lengths.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the start, 1 at the end; what lies outside is put there."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def label(self, tick: float) -> str:
        """Return a tick's text."""
        step = 0.0 if self.log or len(self.ticks) < 2 else abs(self.ticks[1] - self.ticks[0])
        if not step:
            text = significant(tick, 3)
            return text.rstrip("0").rstrip(".") if "." in text else text
        places = max(0, next(p for p in range(12) if abs(round(step, p) - step) < 1e-9 * step or p == 11))
        return f"{tick:,.{places}f}" if abs(tick) >= 10_000 else f"{tick:.{places}f}"


def linear(values: Iterable[float], *, zero: bool = True, most: int = 6) -> Axis:
    """Return a linear axis that holds the values.

    Args:
        values: NaN and infinities are left out.
        zero: whether it starts at 0.
        most: ticks.
    """
    known = _finite(values) or [0.0, 1.0]
    low, high = (min(0.0, *known) if zero else min(known)), max(known)
    if high <= low:
        low, high = (0.0, high or 1.0) if high >= 0 else (low, 0.0)
    step = next(s for s in _steps((high - low) / most) if math.ceil(high / s) - math.floor(low / s) < most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(i * step for i in range(first, last + 1)))


def logarithmic(values: Iterable[float]) -> Axis:
    """Return a logarithmic axis that holds the values, with room at its ends."""
    known = [value for value in _finite(values) if value > 0] or [1.0, 10.0]
    factor = max(1.04, (max(known) / min(known)) ** 0.04)
    low, high = min(known) / factor, max(known) * factor
    if high / low < 1.2:
        low, high = low / 1.1, high * 1.1
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _LOG_STEPS:
        ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        made = Axis(low, high, tuple(ticks), log=True)
        places = [made.place(tick) for tick in ticks]
        if all(after - before >= _CLOSEST for before, after in pairwise(places)):
            return made
    return made


def at_values(values: Sequence[float], *, log: bool) -> Axis:
    """Return an axis with ticks at the values themselves, as for batches; those that would overlap get none."""
    known = sorted(set(_finite(values)))
    if len(known) == 1:
        known = [known[0], known[0] * 2] if log else [known[0] - 1, known[0], known[0] + 1]
    log = log and known[0] > 0
    made = Axis(known[0], known[-1], (), log)
    ticks = [known[0]]
    for value in known[1:]:
        if made.place(value) - made.place(ticks[-1]) >= _CLOSEST * 0.6:
            ticks.append(value)
    return Axis(known[0], known[-1], tuple(ticks), log)


def for_factors(values: Sequence[float]) -> Axis:
    """Return an axis of ratios that holds 1: logarithmic where they span more than a factor of four, else linear."""
    known = [value for value in _finite(values) if value > 0] + [1.0]
    if max(known) / min(known) > 4:
        return logarithmic(known)
    margin = 0.06 * max(max(known) - min(known), 0.1)
    low, high = max(0.0, min(known) - margin), max(known) + margin
    ticks = linear([low, high], zero=False).ticks
    return Axis(low, high, tuple(tick for tick in ticks if low <= tick <= high))


def for_times(values: Sequence[float]) -> Axis:
    """Return an axis of times: from 0, or logarithmic where they span more than a factor of twenty."""
    known = [value for value in _finite(values) if value > 0] or [1.0]
    return logarithmic(known) if max(known) / min(known) > 20 else linear(known)


def _steps(least: float) -> Iterable[float]:
    exponent = math.floor(math.log10(least))
    for more in range(3):
        yield from (step * 10.0 ** (exponent + more) for step in _STEPS)


def _finite(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]
