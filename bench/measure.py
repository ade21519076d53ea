"""Measuring contestants in turn: warm-up until stable, then rounds in which each has its share of time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from .contestants import Contestant
from .pair import Batch
from .statistics import Samples

SLOT_S = 0.25  # a contestant's share of a round
MIN_CALLS = 3  # of a contestant in a round, however slow
WARM_UP_S = 5.0  # at most, a contestant
STABLE = 0.02  # two blocks of warm-up whose medians differ by less


@dataclass(frozen=True)
class WarmUp:
    """How a contestant warmed up.

    Attributes:
        calls: number of calls.
        stable: whether its latency had settled when the warm-up ended.
    """

    calls: int
    stable: bool


@dataclass
class Measurement:
    """What was measured. Grows a round at a time, so that an interrupt leaves whole rounds.

    Attributes:
        samples: by contestant, a round's latencies of single calls in milliseconds, ``(calls,)`` each.
        warm_up: by contestant.
    """

    samples: dict[str, list[Samples]]
    warm_up: dict[str, WarmUp] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Number of whole rounds."""
        return min((len(rounds) for rounds in self.samples.values()), default=0)

    def calls(self, name: str) -> Samples:
        """Return all of a contestant's latencies in milliseconds."""
        return np.concatenate(self.samples[name][: self.rounds])


def measure(
    contestants: Sequence[Contestant],
    batch: Batch,
    duration: float,
    into: Measurement,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Warm up, then measure rounds until ``duration`` seconds are over.

    In each round every contestant has a slot of its own; the order turns round from one round to the next, so that
    neither always comes first (A B, B A, A B, ...). Slow changes of the machine then meet both alike.

    Args:
        contestants: two or more.
        batch: what each call gets.
        duration: seconds, warm-up not counted.
        into: gets the samples; after an interrupt it holds the rounds that were whole.
        clock: nanoseconds.
        progress: told where the work is.
    """
    with undisturbed():
        for contestant in contestants:
            progress(f"Warming up {contestant.name}")
            into.warm_up[contestant.name] = warm_up(contestant, batch, clock)
        end = clock() + int(duration * 1e9)
        while into.rounds == 0 or clock() < end:
            ahead = contestants if into.rounds % 2 == 0 else contestants[::-1]
            slots = {contestant.name: _slot(contestant, batch, clock) for contestant in ahead}
            for name, samples in slots.items():
                into.samples[name].append(samples)
            progress(f"Measuring: round {into.rounds}, {max(0.0, (end - clock()) / 1e9):.0f} s left")


def warm_up(contestant: Contestant, batch: Batch, clock: Callable[[], int]) -> WarmUp:
    """Call until two blocks in a row take the same time (within 2 % by their medians), or for 5 seconds."""
    end = clock() + int(WARM_UP_S * 1e9)
    calls, previous = 0, float("inf")
    while True:
        block = _slot(contestant, batch, clock)
        calls += len(block)
        median = float(np.median(block))
        if abs(median / previous - 1) < STABLE:
            return WarmUp(calls, stable=True)
        if clock() >= end:
            return WarmUp(calls, stable=False)
        previous = median


def _slot(contestant: Contestant, batch: Batch, clock: Callable[[], int]) -> Samples:
    """Call for a slot's time; each call's latency in milliseconds. The first call is dropped: caches held the other's weights."""
    contestant(batch)
    samples: list[int] = []
    end = clock() + int(SLOT_S * 1e9)
    while len(samples) < MIN_CALLS or clock() < end:
        started = clock()
        contestant(batch)
        samples.append(clock() - started)
    return np.array(samples, dtype=np.float64) / 1e6


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python's garbage collector from running inside a sample."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
