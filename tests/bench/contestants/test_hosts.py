"""Contestants in processes of their own, for real."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.bench.contestants.forms import activation_bytes, call, graphs_off, take_parts
from mtl_deploy.bench.contestants.hosts import Host, LocalHost, ProcessHost, start_host
from mtl_deploy.bench.contestants.memory import own_memory
from mtl_deploy.bench.contestants.pair import Settings, find_pair, make_batch
from mtl_deploy.bench.contestants.specs import Spec, chosen_specs, default_specs
from mtl_deploy.bench.measurement.measure import slot, warm_up
from mtl_deploy.runtime.errors import BackendError, RunError, WorkError
from tests.bench import starters

MakeBundle = Callable[..., Path]
SETTINGS = Settings(("CPU",), threads=1)


def spec_of(starter: str, name: str = "echo") -> Spec:
    return Spec(name, name, "peer", Path(), (), ("age",), "fp32", Settings(), f"{starters.__name__}:{starter}")


@pytest.fixture(scope="module")
def echo() -> Iterator[ProcessHost]:
    host = ProcessHost(spec_of("echo"))
    yield host
    host.close()


def test_a_contestant_lives_in_a_process_of_its_own(echo: ProcessHost) -> None:
    assert echo.details == "an echo"
    assert echo.run(starters.number) == echo.pid != os.getpid()


def test_values_go_there_and_back(echo: ProcessHost) -> None:
    batch = np.arange(24, dtype=np.uint8).reshape(2, 12)
    assert echo.run(call, batch)["age"].tolist() == [[0.0], [12.0]]
    assert echo.run(slot, batch, seconds=0.0).shape == (3,)


def test_a_large_batch_is_sent_once() -> None:
    host = ProcessHost(spec_of("echo"))
    try:
        first, second = (np.full((2, 1 << 16), value, np.uint8) for value in (1, 2))
        for _ in range(3):
            assert host.run(call, first)["age"].tolist() == [[1.0], [1.0]]
        assert host.run(starters.seen) == (3, True)
        assert host.run(call, second)["age"].tolist() == [[2.0], [2.0]]
        assert host.run(call, first)["age"].tolist() == [[1.0], [1.0]]
    finally:
        host.close()


def test_an_error_of_ours_comes_back_as_itself_and_another_by_name(echo: ProcessHost) -> None:
    with pytest.raises(RunError, match=r"^the device stumbled$"):
        echo.run(starters.fail, "ours")
    with pytest.raises(WorkError, match="echo failed in its process: ZeroDivisionError: one over nothing"):
        echo.run(starters.fail, "other")
    with pytest.raises(WorkError, match=r"echo failed in its process: .*pickle"):
        echo.run(starters.unpicklable)
    assert echo.run(starters.number) == echo.pid  # and it goes on


def test_ctrl_c_does_not_reach_it(echo: ProcessHost) -> None:
    assert echo.run(starters.interrupted) == "still here"
    assert os.getpgid(echo.pid) != os.getpgid(0)  # the terminal's Ctrl-C goes to the group


@pytest.mark.parametrize("local", [True, False])
def test_a_contestant_that_does_not_start_says_why(local: bool) -> None:
    def begin(starter: str) -> Host:
        host = start_host(spec_of(starter), isolated=not local)
        try:
            _ = host.details
        finally:
            host.close()
        return host

    with pytest.raises(BackendError, match=r"^no such device; use another$"):
        begin("refusing")
    with pytest.raises(WorkError, match="ZeroDivisionError: one over nothing"):
        begin("broken")
    with pytest.raises(WorkError, match="AttributeError"):
        begin("absent")


def test_a_process_that_dies_is_an_error_with_its_last_words() -> None:
    host = ProcessHost(spec_of("dying"))
    with pytest.raises(WorkError, match=r"its process ended \(exit code 7\): a library says its last words"):
        _ = host.details
    host.close()
    host = ProcessHost(spec_of("echo"))
    with pytest.raises(WorkError, match=r"its process ended \(signal 9\): segmentation fault, as if"):
        host.run(starters.fail, "dies")
    host.close()
    host.close()


@pytest.mark.usefixtures("interruptible")
def test_a_host_that_was_interrupted_is_closed_at_once() -> None:
    host = ProcessHost(spec_of("echo"))
    _ = host.details
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        host.run(starters.sleep, 60.0)
    started = time.monotonic()
    with pytest.raises(WorkError, match="interrupted"):
        host.run(starters.number)
    host.close()
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(host.pid, 0)


# the bundle's own contestants


@pytest.fixture
def contestants(make_bundle: MakeBundle) -> tuple[list[Spec], Any]:
    pair = find_pair(make_bundle(work=2), None, ("CPU",))
    return default_specs(pair, SETTINGS), make_batch(pair, 3, seed=0)


def test_every_contestant_of_a_bundle_computes_the_same_wherever_it_lives(contestants: Any) -> None:
    specs, batch = contestants
    assert [spec.name for spec in specs] == [
        "shared",
        "separate",
        "concurrent",
        "shared:age",
        "shared:gender",
        "shared:race",
    ]
    expected = None
    for spec in specs:
        for host in (LocalHost(spec), ProcessHost(spec)):
            try:
                outputs = host.run(call, batch)
                assert tuple(outputs) == spec.tasks
                expected = expected or outputs
                for task, values in outputs.items():
                    np.testing.assert_allclose(values, expected[task], rtol=1e-4)
                assert "CPUExecutionProvider" in host.details
                assert host.run(graphs_off) is None
                assert host.run(activation_bytes) is None
            finally:
                host.close()


def test_separate_models_tell_their_own_times(contestants: Any) -> None:
    specs, batch = contestants
    host = LocalHost(specs[1])
    host.run(warm_up, batch, 0.0, 0.0)
    taken = host.run(take_parts)
    assert {task: len(times) for task, times in taken.items()} == {"age": 4, "gender": 4, "race": 4}
    assert all(time > 0 for times in taken.values() for time in times)
    assert not any(host.run(take_parts).values())
    host.close()
    shared = LocalHost(specs[0])
    shared.run(call, batch)
    assert shared.run(take_parts) == {}
    shared.close()


def test_memory_is_read_in_the_contestants_own_process(contestants: Any) -> None:
    specs, batch = contestants
    host = ProcessHost(specs[0])
    host.run(call, batch)
    found = host.run(own_memory)
    host.close()
    assert found is not None
    assert found.peak > found.libraries > 10e6
    assert own_memory(None) is None  # type: ignore[arg-type]


def test_contestants_at_once_share_the_threads_out(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), None, ("CPU",))
    (spec,) = (s for s in default_specs(pair, Settings(("CPU",), threads=7)) if s.name == "concurrent")
    assert spec.settings.threads == 2
    assert spec.title == "3 separate at once, 2 threads each"


def test_contestants_can_be_chosen_left_out_and_added(make_bundle: MakeBundle) -> None:
    pair = find_pair(make_bundle(), None, ("CPU",))

    def names(**options: Any) -> list[str]:
        return [spec.name for spec in chosen_specs(pair, SETTINGS, **options)]

    assert names(only=["shared:age"]) == ["shared", "shared:age"]
    assert names(without=["concurrent", "shared:age", "shared:race"]) == ["shared", "separate", "shared:gender"]
    assert names(only=["separate"], add=["separate@fp16"]) == ["shared", "separate", "separate@fp16"]
    (added,) = (s for s in chosen_specs(pair, SETTINGS, add=["separate@fp16"]) if s.name == "separate@fp16")
    assert [artifact.path for artifact in added.artifacts] == [
        f"separate/{task}.fp16.onnx" for task in ("age", "gender", "race")
    ]
