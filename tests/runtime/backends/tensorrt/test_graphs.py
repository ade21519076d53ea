from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import DeviceMemoryError, load
from tests.fakes.gpu import IMAGES, EngineBundle, GpuArray, Simulation, check


def kinds(machine: Simulation) -> tuple[int, int]:
    """Return how many graphs were captured and launched so far."""
    return machine.cuda.calls["cuGraphInstantiate"], machine.cuda.calls["cuGraphLaunch"]


def test_a_batch_size_runs_plain_first_is_captured_second_and_launched_from_the_third_call_on(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        found = []
        for _ in range(4):
            check(model(IMAGES[:3]), IMAGES[:3])
            found.append(kinds(machine))
        assert model.backend.graphs_off is None  # type: ignore[attr-defined]
    assert found == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_graphs_of_several_batches_do_not_disturb_one_another(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        model(IMAGES[:8])
        for round_ in range(4):
            for batch in (1, 4, 8, 2):
                images = IMAGES[round_ : round_ + batch]
                check(model(images), images)
        assert kinds(machine) == (4, 9)


def test_no_more_graphs_are_kept_than_asked_for(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle(), cuda_graphs=2) as model:
        model(IMAGES[:8])
        for _ in range(3):
            for batch in (1, 2, 3):
                for _ in range(3):
                    check(model(IMAGES[:batch]), IMAGES[:batch])
        assert len(machine.cuda.executables) == 2
        assert len(machine.cuda.graphs) == 0


def test_graphs_can_be_turned_off(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle(), cuda_graphs=0) as model:
        for _ in range(4):
            check(model(IMAGES[:3]), IMAGES[:3])
        assert model.backend.graphs_off == "turned off"  # type: ignore[attr-defined]
    assert kinds(machine) == (0, 0)


def test_a_larger_batch_forgets_graphs_and_all_stays_right(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        for batch, graphs in (
            (1, 0),
            (1, 1),
            (1, 1),
            (2, 0),
            (2, 1),
            (1, 1),
            (1, 2),
            (8, 0),
            (1, 0),
            (2, 0),
            (2, 1),
            (8, 2),
        ):
            check(model(IMAGES[:batch]), IMAGES[:batch])
            assert len(machine.cuda.executables) == graphs


def test_a_graph_goes_once_its_launches_on_the_callers_stream_are_done(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle(), cuda_graphs=1) as model:
        stream = driver.new_stream()
        images = [GpuArray(driver, IMAGES[i : i + 4], stream=stream) for i in range(2)]
        outputs = [GpuArray(driver, np.zeros((4, 1), np.float32)) for _ in range(2)]
        for _ in range(3):
            for i in (0, 0, 0, 1, 1, 1):
                out = {"age": outputs[i].interface()}
                model(images[i].interface(), tasks=("age",), out=out, stream=stream)
        driver.cuStreamSynchronize(stream)
        for i in range(2):
            check({"age": outputs[i].read()}, IMAGES[i : i + 4])
        assert driver.calls["cuGraphExecDestroy"] == 5
        for array in (*images, *outputs):
            array.free()
        driver.cuStreamDestroy(stream)


def test_a_pinned_array_has_a_graph_of_its_own(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:
        images = model.pinned(4)
        for start in range(5):
            images[...] = IMAGES[start : start + 4]
            check(model(images), images)
            check(model(IMAGES[:4]), IMAGES[:4])
        assert kinds(machine) == (2, 6)


@pytest.mark.parametrize(
    ("function", "error", "reason"),
    [
        ("cuStreamBeginCapture", "STREAM_CAPTURE_UNSUPPORTED", "CUDA failed: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"),
        ("cuGraphInstantiate", "OUT_OF_MEMORY", "the GPU's memory is full"),
    ],
)
def test_where_nothing_can_be_captured_calls_go_on_without_graphs(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, function: str, error: str, reason: str
) -> None:
    machine.cuda.fail(function, error)
    with load(engine_bundle()) as model:
        for batch in (2, 2, 2, 3, 3, 3):
            check(model(IMAGES[:batch]), IMAGES[:batch])
        assert str(model.backend.graphs_off).startswith(reason)  # type: ignore[attr-defined]
        assert machine.cuda.live()["graphs"] == 0


@pytest.mark.parametrize("flaw", ["refuse_capture", "allocate_in_capture"])
def test_an_engine_that_cannot_be_captured_says_why(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, flaw: str
) -> None:
    setattr(trt, flaw, True)
    with load(engine_bundle()) as model:
        for start in range(5):
            images = IMAGES[start : start + 2]
            check(model(images), images)
        assert "TensorRT 10.3.0 failed (enqueue)" in str(model.backend.graphs_off)  # type: ignore[attr-defined]
        assert machine.cuda.live()["graphs"] == 0


def test_tensorrt_rtx_is_asked_whether_it_can_be_captured(machine: Simulation, engine_bundle: EngineBundle) -> None:
    rtx = machine.install("1.7.1.116", rtx=True)
    rtx.capturable = False
    with load(engine_bundle(library="tensorrt-rtx", version="1.7.1.116")) as model:
        for _ in range(4):
            check(model(IMAGES[:2]), IMAGES[:2])
        assert "says that this engine cannot be captured" in str(model.backend.graphs_off)  # type: ignore[attr-defined]
    assert kinds(machine) == (0, 0)


def test_no_memory_for_a_graphs_context_costs_the_graph_alone(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        check(model(IMAGES[:2]), IMAGES[:2])
        machine.cuda.limit = sum(block.size for block in machine.cuda.blocks.values()) + 100
        for start in range(4):
            images = IMAGES[start : start + 2]
            check(model(images), images)
        assert "out of memory" in str(model.backend.graphs_off)  # type: ignore[attr-defined]
        with pytest.raises(DeviceMemoryError):
            model(IMAGES[:8])
