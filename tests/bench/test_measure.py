from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.measure import MIN_CALLS, Measurement, measure, warm_up

BATCH = np.zeros((1,), np.uint8)


class Clock:
    """Nanoseconds that pass only when a contestant works."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Worker:
    """A contestant whose calls take known times."""

    def __init__(self, name: str, clock: Clock, times_ms: Iterator[float], log: list[str]) -> None:
        self.name = name
        self.clock, self.times_ms, self.log = clock, times_ms, log

    def __call__(self, batch: Any) -> dict[str, Any]:
        self.collects = gc.isenabled()
        self.log.append(self.name)
        self.clock.now += int(1e6 * next(self.times_ms))
        return {}

    def close(self) -> None:
        pass


def constant(value: float) -> Iterator[float]:
    while True:
        yield value


def order(log: list[str]) -> list[str]:
    """The log without repeats of one contestant in a row."""
    return [name for i, name in enumerate(log) if i == 0 or log[i - 1] != name]


def test_contestants_run_in_turn_and_neither_always_first() -> None:
    clock, log = Clock(), []
    pair = [Worker("a", clock, constant(10), log), Worker("b", clock, constant(30), log)]
    into = Measurement({"a": [], "b": []})
    measure(pair, BATCH, 4.0, into, clock=clock)

    assert order(log)[:8] == [
        "a",
        "b",
        "a",
        "b",
        "a",
        "b",
        "a",
        "b",
    ]  # A B, B A, A B: neighbours of one name melt together
    assert into.rounds == 8
    assert np.concatenate(into.samples["a"]) == pytest.approx(10)
    assert np.concatenate(into.samples["b"]) == pytest.approx(30)
    assert into.warm_up["a"].stable
    assert not any(worker.collects for worker in pair)  # no garbage collection inside a sample
    assert gc.isenabled()


def test_a_slow_contestant_has_its_least_calls_in_each_round() -> None:
    clock, log = Clock(), []
    pair = [Worker("a", clock, constant(1000), log), Worker("b", clock, constant(5), log)]
    into = Measurement({"a": [], "b": []})
    measure(pair, BATCH, 0.001, into, clock=clock)
    assert into.rounds == 1
    assert len(into.samples["a"][0]) == MIN_CALLS


def test_warm_up_goes_on_until_latency_has_settled() -> None:
    def settling() -> Iterator[float]:
        for i in range(200):
            yield 10 + 100 * 0.96**i
        yield from constant(10)

    clock = Clock()
    found = warm_up(Worker("a", clock, settling(), []), BATCH, clock)
    assert found.stable
    assert found.calls > 20


def test_warm_up_ends_when_latency_never_settles() -> None:
    def doubling() -> Iterator[float]:
        value = 1.0
        while True:
            yield value
            value *= 1.02

    clock = Clock()
    found = warm_up(Worker("a", clock, doubling(), []), BATCH, clock)
    assert not found.stable


def test_an_interrupt_leaves_the_rounds_that_were_whole() -> None:
    clock, log = Clock(), []

    def interrupted() -> Iterator[float]:
        for _ in range(80):
            yield 10
        raise KeyboardInterrupt

    pair = [Worker("a", clock, constant(10), log), Worker("b", clock, interrupted(), log)]
    into = Measurement({"a": [], "b": []})
    with pytest.raises(KeyboardInterrupt):
        measure(pair, BATCH, 60.0, into, clock=clock)
    assert into.rounds == 1
    assert len(into.samples["a"]) == len(into.samples["b"]) == 1
    assert gc.isenabled()
