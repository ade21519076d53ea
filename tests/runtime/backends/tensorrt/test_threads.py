from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import RunError, load
from tests.fakes.gpu import IMAGES, EngineBundle, Simulation, check


def in_threads(count: int, work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def test_eight_threads_share_four_contexts_and_get_their_own_results(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        start = threading.Barrier(8)

        def work(number: int) -> None:
            start.wait()
            for step in range(40):
                images = IMAGES[number : number + 1 + step % 4]
                check(model(images), images)

        in_threads(8, work)
        assert machine.cuda.live()["streams"] <= 4


def hold_lanes(machine: Simulation, count: int) -> tuple[threading.Event, threading.Event]:
    """Let host waits block until told, so that several calls are under way at once."""
    inside, go = threading.Event(), threading.Event()
    waiting: list[int] = []
    original = type(machine.cuda).cuStreamSynchronize

    def wait(stream: Any) -> tuple[Any, ...]:
        waiting.append(1)
        if len(waiting) >= count:
            inside.set()
        go.wait(10)
        found: tuple[Any, ...] = original(machine.cuda, stream)
        return found

    machine.replace("cuStreamSynchronize", wait)
    return inside, go


def test_contexts_are_made_as_calls_overlap_and_no_more_than_allowed(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle(), contexts=3) as model:
        inside, go = hold_lanes(machine, 3)
        threads = [threading.Thread(target=lambda: check(model(IMAGES[:2]), IMAGES[:2])) for _ in range(5)]
        for thread in threads:
            thread.start()
        assert inside.wait(10)
        assert machine.cuda.live()["streams"] == 3
        go.set()
        for thread in threads:
            thread.join()
        assert machine.cuda.live()["streams"] == 3


def test_no_memory_for_a_further_context_goes_on_with_fewer(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle(), contexts=4) as model:
        check(model(IMAGES[:2]), IMAGES[:2])
        machine.cuda.limit = sum(block.size for block in machine.cuda.blocks.values()) + 4000
        inside, go = hold_lanes(machine, 1)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                check(model(IMAGES[:2]), IMAGES[:2])
            except Exception as error:  # noqa: BLE001 - shown in the main thread
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert inside.wait(10)
        go.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert machine.cuda.live()["streams"] == 1


def test_closing_waits_for_calls_under_way_and_later_ones_are_told(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    model = load(engine_bundle(), contexts=2)
    done: list[int] = []
    refused: list[str] = []
    running = threading.Barrier(9)

    def work() -> None:
        running.wait()
        try:
            while True:
                check(model(IMAGES[:2]), IMAGES[:2])
                done.append(1)
        except RunError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    running.wait()
    while len(done) < 50 and not refused:
        pass
    model.close()
    for thread in threads:
        thread.join()
    assert refused == ["the model is closed; load it again"] * 8
    assert not any(machine.cuda.live().values())


def test_pinned_arrays_may_be_dropped_in_any_thread(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:

        def work(number: int) -> None:
            for _ in range(5):
                images = model.pinned(2)
                images[...] = IMAGES[number : number + 2]
                check(model(images), np.array(images))

        in_threads(4, work)
        gc.collect()
        dropped = len(machine.cuda.pinned)
        held = model.pinned(2)
        assert len(machine.cuda.pinned) == dropped + 1
        del held, work
    gc.collect()
    assert not any(machine.cuda.live().values())


def test_a_borrowed_context_serves_other_threads_and_no_primary_one_is_retained(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    machine.cuda.foreign_context()  # as pycuda.autoinit makes it
    with load(engine_bundle()) as model:
        assert machine.cuda.live()["retained"] == 0
        check(model(IMAGES[:2]), IMAGES[:2])
        in_threads(3, lambda number: check(model(IMAGES[number:]), IMAGES[number:]) if number > 20 else None)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append([model(IMAGES[:4]) for _ in range(3)]))
        thread.start()
        thread.join()
        for outputs in found[0]:
            check(outputs, IMAGES[:4])
    assert machine.cuda.calls["cuDevicePrimaryCtxRetain"] == 0
    assert not machine.cuda.primaries[0].alive


def test_a_thread_that_works_in_a_context_of_its_own_finds_it_again(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:

        def work(number: int) -> None:
            own = machine.cuda.foreign_context()
            for _ in range(3):
                check(model(IMAGES[:2]), IMAGES[:2])
                assert machine.cuda.stack[-1] is own
            machine.cuda.stack.pop()

        in_threads(2, work)


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_caller_who_interrupts_a_wait_leaves_no_work_behind(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, contexts: int
) -> None:
    with load(engine_bundle(), contexts=contexts) as model:
        model(IMAGES[:2])
        original = machine.cuda.cuStreamSynchronize
        waits = []

        def interrupted(stream: Any) -> Any:
            waits.append(stream)
            if len(waits) == 1:
                raise KeyboardInterrupt
            return original(stream)

        machine.replace("cuStreamSynchronize", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model(IMAGES[:2])
        assert len(waits) == 2
        check(model(IMAGES[2:4]), IMAGES[2:4])
