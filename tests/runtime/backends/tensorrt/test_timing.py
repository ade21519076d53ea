"""Calls taken apart and engines at once, on a simulated GPU. What a real one takes is not tested: no test asserts a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import load
from mtl_deploy.runtime.backends.tensorrt.timing import Timeline, Timing
from mtl_deploy.runtime.backends.tensorrt.together import Together
from mtl_deploy.runtime.errors import DeviceMemoryError, RunError
from mtl_deploy.runtime.model import Model
from tests.fakes.fork import ForkingCuda
from tests.fakes.gpu import IMAGES, check

TASKS = ("age", "gender", "race")


@pytest.fixture
def forking(machine: Any) -> ForkingCuda:
    """The simulated driver, with captures over several streams."""
    machine.install()
    return ForkingCuda.extend(machine.cuda)


def separate(bundle: Path) -> list[Model]:
    return [load(bundle / "separate" / f"{task}.trt", runtime_cache=False) for task in TASKS]


def close(models: list[Model]) -> None:
    for model in models:
        model.close()


@pytest.mark.parametrize("graph", [False, True])
def test_a_call_with_transfers_computes_what_the_model_does(
    trt: Any, engine_bundle: Callable[..., Path], graph: bool
) -> None:
    with load(engine_bundle()) as model:
        timeline = Timeline(model.backend, IMAGES[:5])  # type: ignore[arg-type]
        for _ in range(3):
            timing = timeline.measure(transfers=True, graph=graph)
        check(timeline.results(), IMAGES[:5])
        assert timing.latency == timing.h2d + timing.compute + timing.d2h
        timeline.close()


def test_a_call_without_transfers_copies_nothing(machine: Any, trt: Any, engine_bundle: Callable[..., Path]) -> None:
    with load(engine_bundle()) as model:
        timeline = Timeline(model.backend, IMAGES[:2])  # type: ignore[arg-type]
        names = ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync")
        before = [machine.cuda.calls[name] for name in names]
        timing = timeline.measure(transfers=False, graph=True)
        assert [machine.cuda.calls[name] for name in names] == before
        assert timing.h2d == timing.d2h == 0
        assert timing.latency == timing.compute
        timeline.close()


def test_the_graph_holds_the_engine_alone(machine: Any, trt: Any, engine_bundle: Callable[..., Path]) -> None:
    """So that the copies keep times of their own, as trtexec has it."""
    with load(engine_bundle()) as model:
        timeline = Timeline(model.backend, IMAGES[:2])  # type: ignore[arg-type]
        before = machine.cuda.calls["cuMemcpyHtoDAsync"]
        timeline.measure(transfers=True, graph=True)
        assert machine.cuda.calls["cuMemcpyHtoDAsync"] == before + 1
        timeline.close()


def test_an_engine_that_cannot_be_captured_is_timed_without_a_graph(
    trt: Any, engine_bundle: Callable[..., Path]
) -> None:
    with load(engine_bundle()) as model:
        trt.refuse_capture = True
        timeline = Timeline(model.backend, IMAGES[:2])  # type: ignore[arg-type]
        assert timeline.graphs_off is not None
        timeline.measure(transfers=True, graph=False)
        check(timeline.results(), IMAGES[:2])
        with pytest.raises(RunError, match="no CUDA graph: "):
            timeline.measure(transfers=True, graph=True)
        timeline.close()


def test_timings_of_several_models_add_up() -> None:
    total = Timing(1, 2, 3, 4) + Timing(10, 20, 30, 40)
    assert total == Timing(11, 22, 33, 44)
    assert total.latency == 99


@pytest.mark.parametrize("whole", [False, True], ids=["streams", "one-graph"])
@pytest.mark.parametrize("rtx", [False, True], ids=["tensorrt", "rtx"])
def test_engines_at_once_compute_what_they_do_alone(
    machine: Any, engine_bundle: Callable[..., Path], whole: bool, rtx: bool
) -> None:
    machine.install("1.7.1" if rtx else "10.3.0", rtx=rtx)
    ForkingCuda.extend(machine.cuda)
    changes = {"library": "tensorrt-rtx", "version": "1.7.1"} if rtx else {}
    models = separate(engine_bundle(**changes))
    together = Together([model.backend for model in models], 4, whole=whole)  # type: ignore[misc]
    launches = machine.cuda.calls["cuGraphLaunch"]
    copies = machine.cuda.calls["cuMemcpyHtoDAsync"]
    for start in (0, 4, 8):  # each time other images: nothing may be left from the last
        images = IMAGES[start : start + 4]
        found = together(images)
        assert tuple(found) == TASKS
        check(found, images)
    assert machine.cuda.calls["cuGraphLaunch"] - launches == (3 if whole else 9)
    assert machine.cuda.calls["cuMemcpyHtoDAsync"] - copies == (
        0 if whole else 3
    )  # the images go to the GPU once a call
    together.close()
    together.close()
    with pytest.raises(RunError, match="closed"):
        together(IMAGES[:4])
    close(models)


def test_without_graphs_engines_run_at_once_kernel_by_kernel(
    forking: ForkingCuda, engine_bundle: Callable[..., Path]
) -> None:
    models = separate(engine_bundle())
    together = Together([model.backend for model in models], 2, whole=False, graphs=False)  # type: ignore[misc]
    check(together(IMAGES[:2]), IMAGES[:2])
    assert together.graphs_off == "turned off"
    assert forking.calls["cuGraphLaunch"] == 0
    together.close()
    close(models)


def test_engines_that_cannot_be_captured_make_no_single_graph(
    machine: Any, forking: ForkingCuda, engine_bundle: Callable[..., Path]
) -> None:
    trt = machine.install()
    models = separate(engine_bundle())
    trt.refuse_capture = True
    with pytest.raises(RunError, match="failed"):
        Together([model.backend for model in models], 2, whole=True)  # type: ignore[misc]
    together = Together([model.backend for model in models], 2, whole=False)  # type: ignore[misc]
    assert together.graphs_off is not None
    check(together(IMAGES[:2]), IMAGES[:2])
    together.close()
    close(models)


def test_memory_that_does_not_suffice_is_told_and_nothing_is_left(
    machine: Any, forking: ForkingCuda, engine_bundle: Callable[..., Path]
) -> None:
    models = separate(engine_bundle())
    live = machine.cuda.live()
    machine.cuda.fail("cuMemAlloc", "OUT_OF_MEMORY", 5)
    with pytest.raises(DeviceMemoryError):
        Together([model.backend for model in models], 2, whole=True)  # type: ignore[misc]
    assert machine.cuda.live() == live
    check(models[0](IMAGES[:2]), IMAGES[:2])
    close(models)


def test_a_batch_that_the_engine_does_not_take_is_told(trt: Any, engine_bundle: Callable[..., Path]) -> None:
    with load(engine_bundle()) as model, pytest.raises(RunError, match="outside the profile"):
        Timeline(model.backend, np.repeat(IMAGES, 2, axis=0))  # type: ignore[arg-type]


def test_a_call_is_timed_on_a_driver_that_is_older_than_the_bindings(
    machine: Any, trt: Any, engine_bundle: Callable[..., Path]
) -> None:
    machine.cuda.version = 12060  # JetPack 6, with cuda-bindings 13
    with load(engine_bundle()) as model:
        timeline = Timeline(model.backend, IMAGES[:2])  # type: ignore[arg-type]
        assert timeline.measure(transfers=True, graph=True).compute == 1.0
        timeline.close()
