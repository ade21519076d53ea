from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.measurement.measure import MIN_CALLS, Measurement, measure, slot, warm_up
from mtl_deploy.runtime.errors import DeviceLostError, RunError

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


class Here:
    """A host in this process."""

    details = "here"

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.spec: Any = SimpleNamespace(title=worker.name)

    def run(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return function(self.worker, *args, **kwargs)

    def close(self) -> None:
        pass


def measured(workers: list[Worker], duration: float, clock: Clock, into: Measurement, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    measure({worker.name: Here(worker) for worker in workers}, BATCH, duration, into, rng=rng, clock=clock)


def constant(value: float) -> Iterator[float]:
    while True:
        yield value


def test_contestants_run_in_turn_in_shuffled_orders() -> None:
    clock, log = Clock(), []
    workers = [Worker(name, clock, constant(10), log) for name in ("shared", "separate", "concurrent")]
    into = Measurement()
    measured(workers, 30.0, clock, into)
    assert into.rounds == 39  # of 0.78 s: 26 calls each, the dropped one among them
    assert into.processes == 1
    for name in into.names:
        assert into.calls(name) == pytest.approx(10)
        assert len(into.nested(name)[0]) == 39
        assert into.warm_up[name][0].stable
    calls = 1 + 25  # of a slot: the first is dropped
    slots = log[-39 * 3 * calls :: calls]
    rounds = [tuple(slots[i : i + 3]) for i in range(0, 117, 3)]
    assert all(len(set(one)) == 3 for one in rounds)  # each has its slot in each round
    assert len(set(rounds)) == 6  # in every order
    assert not any(worker.collects for worker in workers)  # no garbage collection inside a sample
    assert gc.isenabled()


def test_the_order_is_the_same_for_the_same_seed() -> None:
    logs: list[list[str]] = [[], [], []]
    for log, seed in zip(logs, (1, 1, 2), strict=True):
        clock = Clock()
        measured([Worker(name, clock, constant(100), log) for name in ("shared", "a")], 5.0, clock, Measurement(), seed)
    assert logs[0] == logs[1] != logs[2]


def test_processes_nest_above_rounds() -> None:
    clock, into = Clock(), Measurement()
    for _ in range(3):
        measured([Worker(name, clock, constant(50), []) for name in ("shared", "a")], 1.0, clock, into)
    assert into.processes == 3
    assert [len(rounds) for rounds in into.nested("a")] == [2, 2, 2]
    assert len(into.warm_up["a"]) == 3
    assert into.rounds == 6


def test_a_slow_contestant_has_its_least_calls_in_each_round() -> None:
    clock, log = Clock(), []
    into = Measurement()
    measured([Worker("shared", clock, constant(1000), log), Worker("b", clock, constant(5), log)], 0.001, clock, into)
    assert into.rounds == 1
    assert len(into.nested("shared")[0][0]) == MIN_CALLS


def test_a_slot_drops_its_first_call() -> None:
    clock = Clock()
    found = slot(Worker("a", clock, iter([100.0, *[5.0] * 10]), []), BATCH, 0.04, clock)
    assert found.tolist() == [5.0] * 8


def test_warm_up_goes_on_until_latency_has_settled() -> None:
    def settling() -> Iterator[float]:
        for i in range(200):
            yield 10 + 100 * 0.96**i
        yield from constant(10)

    clock = Clock()
    found = warm_up(Worker("a", clock, settling(), []), BATCH, clock=clock)
    assert found.stable
    assert found.calls > 20


def test_warm_up_ends_when_latency_never_settles() -> None:
    def doubling() -> Iterator[float]:
        value = 1.0
        while True:
            yield value
            value *= 1.02

    clock = Clock()
    found = warm_up(Worker("a", clock, doubling(), []), BATCH, clock=clock)
    assert not found.stable


def test_an_interrupt_leaves_the_rounds_that_were_whole() -> None:
    clock = Clock()

    def interrupted() -> Iterator[float]:
        for _ in range(100):
            yield 10
        raise KeyboardInterrupt

    into = Measurement()
    workers = [Worker("shared", clock, constant(10), []), Worker("b", clock, interrupted(), [])]
    with pytest.raises(KeyboardInterrupt):
        measured(workers, 60.0, clock, into)
    assert into.rounds == 1
    assert len(into.nested("shared")[0]) == len(into.nested("b")[0]) == 1
    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):  # in a second process, before its first round
        measured([workers[0], Worker("b", clock, failing(KeyboardInterrupt(), 60), [])], 9.0, clock, into)
    assert into.processes == into.rounds == 1


def failing(error: BaseException, after: int) -> Iterator[float]:
    for _ in range(after):
        yield 10
    raise error


@pytest.mark.parametrize("after", [3, 100], ids=["warm-up", "rounds"])
def test_a_contestant_that_fails_is_left_out_with_the_reason(after: int) -> None:
    clock, into = Clock(), Measurement()
    workers = [Worker("shared", clock, constant(10), []), Worker("b", clock, failing(RunError("no more"), after), [])]
    measured(workers, 3.0, clock, into)
    assert into.names == ("shared",)
    assert into.lost == {"b": "no more"}
    assert into.rounds > 3


@pytest.mark.parametrize(("name", "error"), [("shared", RunError("no more")), ("b", DeviceLostError("gone"))])
def test_without_the_shared_one_or_the_device_there_is_nothing_to_measure(name: str, error: Exception) -> None:
    clock = Clock()
    others = [Worker(other, clock, constant(10), []) for other in {"shared", "b"} - {name}]
    with pytest.raises(type(error)):
        measured([*others, Worker(name, clock, failing(error, 100), [])], 3.0, clock, Measurement())
