"""Measuring contestants in turn: warm-up until stable, then rounds in which each has its share of the time."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from mtl_deploy.bench.contestants.contestant import Contestant
from mtl_deploy.bench.contestants.forms import take_parts
from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.contestants.specs import SHARED
from mtl_deploy.bench.statistics.nested import Nested, Samples
from mtl_deploy.runtime.errors import DeviceLostError, WorkError

SLOT_S = 0.25  # a contestant's share of a round
MIN_CALLS = 3  # per contestant and round, however slow
WARM_UP_S = 5.0  # at most, per contestant
STABLE = 0.02  # two blocks of warm-up whose medians differ by less

Clock = Callable[[], int]
T = TypeVar("T")


@dataclass(frozen=True)
class WarmUp:
    """How a contestant warmed up in one process.

    Attributes:
        calls: number of calls.
        stable: whether its latency had settled when the warm-up ended.
    """

    calls: int
    stable: bool


@dataclass
class Measurement:
    """What was measured. Grows by whole rounds, so that an interrupt leaves nothing half done.

    Attributes:
        samples: by contestant: by process, by round, the latencies of single calls in milliseconds, ``(calls,)`` each.
        warm_up: by contestant, for each process.
        parts_ms: by contestant of several models one after the other: by task, that model's own time in each call.
        lost: contestants that failed while they were measured, with the reason.
    """

    samples: dict[str, list[list[Samples]]] = field(default_factory=dict)
    warm_up: dict[str, list[WarmUp]] = field(default_factory=dict)
    parts_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Contestants that were measured."""
        return tuple(self.samples)

    @property
    def processes(self) -> int:
        """Number of processes, or of times that the contestants were loaded, that have a whole round."""
        return sum(rounds > 0 for rounds in self._whole())

    @property
    def rounds(self) -> int:
        """Number of whole rounds over all processes."""
        return sum(self._whole())

    def nested(self, name: str) -> Nested:
        """Return a contestant's samples by process, round and call: whole rounds, of processes that have one."""
        return [samples[:rounds] for samples, rounds in zip(self.samples[name], self._whole(), strict=False) if rounds]

    def by_name(self) -> dict[str, Nested]:
        """Return the samples of all contestants that have a whole round."""
        return {name: nested for name in self.names if (nested := self.nested(name))}

    def _whole(self) -> list[int]:
        """Return the number of rounds of each process that all contestants have; an interrupt can come at any moment."""
        return [min(map(len, one)) for one in zip(*self.samples.values(), strict=False)]

    def calls(self, name: str) -> Samples:
        """Return all of a contestant's latencies in milliseconds."""
        return np.concatenate([samples for rounds in self.nested(name) for samples in rounds])

    def drop(self, name: str, reason: str) -> None:
        """Forget a contestant that failed: it does not have the same rounds as the others."""
        self.samples.pop(name, None)
        self.warm_up.pop(name, None)
        self.parts_ms.pop(name, None)
        self.lost[name] = reason


def measure(
    hosts: Mapping[str, Host],
    batch: Batch,
    duration: float,
    into: Measurement,
    *,
    rng: np.random.Generator,
    clock: Clock = time.perf_counter_ns,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure rounds for ``duration`` seconds, one at least, with contestants that were just started.

    In each round every contestant has a slot of its own, in a shuffled order: so slow changes of the machine, and what one leaves
    in the caches for the next, affect all alike. A contestant that fails is left out, unless it is the shared one.

    Args:
        hosts: the contestants, by name.
        batch: what each call gets.
        duration: seconds, warm-up not counted.
        into: gets a process's samples; after an interrupt it holds the rounds that were whole.
        rng: shuffles.
        clock: nanoseconds.
        progress: shows what is being measured.

    Raises:
        WorkError: the shared contestant failed.
        DeviceLostError: the GPU's context is unusable.
    """
    live = dict(hosts)
    for name, host in hosts.items():
        progress(f"Warming up {host.spec.title}")
        found = _attempt(live, name, into, lambda one: one.run(warm_up, batch, WARM_UP_S, SLOT_S, clock))
        if found is not None:
            into.warm_up.setdefault(name, []).append(found)
            host.run(take_parts)  # those of the warm-up do not count
    for name in live:
        into.samples.setdefault(name, []).append([])
    end = clock() + int(duration * 1e9)
    done = 0
    while done == 0 or clock() < end:
        slots: dict[str, Samples] = {}
        parts: dict[str, dict[str, list[float]]] = {}
        for name in rng.permutation(sorted(live)).tolist():
            found_slot = _attempt(live, name, into, lambda host: host.run(slot, batch, SLOT_S, clock))
            if found_slot is not None:
                slots[name] = found_slot
                parts[name] = live[name].run(take_parts)
        for name, samples in slots.items():
            into.samples[name][-1].append(samples)
            for task, times in parts[name].items():
                into.parts_ms.setdefault(name, {}).setdefault(task, []).extend(times)
        done += 1
        progress(f"Measuring: round {into.rounds}, {max(0.0, (end - clock()) / 1e9):.0f} s left")


def _attempt(live: dict[str, Host], name: str, into: Measurement, work: Callable[[Host], T]) -> T | None:
    """Return what a contestant's work gives; None where it failed and is now left out."""
    try:
        return work(live[name])
    except DeviceLostError:
        raise
    except WorkError as error:
        if name == SHARED:
            raise
        into.drop(name, str(error))
        del live[name]
        return None


def warm_up(
    contestant: Contestant,
    batch: Batch,
    seconds: float = WARM_UP_S,
    block_s: float = SLOT_S,
    clock: Clock = time.perf_counter_ns,
) -> WarmUp:
    """Call until two blocks in a row take the same time (within 2 % by their medians), or for some seconds.

    Args:
        contestant: the one to warm up.
        batch: what each call gets.
        seconds: at most.
        block_s: a block's.
        clock: nanoseconds.
    """
    gc.collect()
    end = clock() + int(seconds * 1e9)
    calls, previous = 0, float("inf")
    while True:
        block = slot(contestant, batch, block_s, clock)
        calls += len(block)
        median = float(np.median(block))
        if abs(median / previous - 1) < STABLE:
            return WarmUp(calls, stable=True)
        if clock() >= end:
            return WarmUp(calls, stable=False)
        previous = median


def slot(contestant: Contestant, batch: Batch, seconds: float, clock: Clock = time.perf_counter_ns) -> Samples:
    """Call for some seconds, a few times at least, and return each call's latency in milliseconds, ``(calls,)``.

    The first call is dropped: the caches held another's weights. Python's garbage collection is off meanwhile.

    Args:
        contestant: the one to call.
        batch: what each call gets.
        seconds: the slot's.
        clock: nanoseconds.
    """
    samples: list[int] = []
    with undisturbed(collect=False):
        contestant(batch)
        end = clock() + int(seconds * 1e9)
        while len(samples) < MIN_CALLS or clock() < end:
            started = clock()
            contestant(batch)
            samples.append(clock() - started)
    return np.array(samples, dtype=np.float64) / 1e6


@contextmanager
def undisturbed(*, collect: bool = True) -> Iterator[None]:
    """Keep Python's garbage collector from running inside a sample.

    Args:
        collect: whether to let it run before; it takes a while where much is loaded.
    """
    was_on = gc.isenabled()
    if collect:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
