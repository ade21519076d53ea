from __future__ import annotations

import gc
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import (
    BackendError,
    DeviceLostError,
    DeviceMemoryError,
    ImageError,
    IntegrityError,
    OptionError,
    RunError,
    load,
)
from mtl_deploy.runtime.bundle.manifest import open_bundle
from tests.fakes.gpu import BATCH_MAX, IMAGES, EngineBundle, Simulation, check

VERSIONS = [("8.6.0", False), ("10.3.0", False), ("11.0.0", False), ("1.7.1.116", True)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("version", "rtx"), VERSIONS)
def test_every_library_gives_the_graphs_outputs_for_every_batch(
    machine: Simulation, engine_bundle: EngineBundle, version: str, rtx: bool
) -> None:
    machine.install(version, rtx=rtx)
    bundle = engine_bundle(version=version, library="tensorrt-rtx" if rtx else "tensorrt")
    with load(bundle) as model, load(bundle, backend="onnxruntime") as graph:
        assert model.backend.name == "tensorrt"
        assert version in model.backend.details
        for _ in range(3):  # plain, captured, replayed
            for batch in range(1, BATCH_MAX + 1):
                found, reference = model(IMAGES[:batch]), graph(IMAGES[:batch])
                assert list(found) == ["age", "gender", "race"]
                for task, values in found.items():
                    np.testing.assert_allclose(values, reference[task], rtol=1e-5)
        assert model.predict(IMAGES[0])["race"].label == graph.predict(IMAGES[0])["race"].label


def test_a_float_input_and_logits_work_too(trt: Any, engine_bundle: EngineBundle) -> None:
    bundle = engine_bundle(image_input="float", outputs="logits")
    with load(bundle) as model, load(bundle, backend="onnxruntime") as graph:
        assert str(model.predict(IMAGES[0])["age"]) == str(graph.predict(IMAGES[0])["age"])


def test_predict_runs_more_images_than_a_batch_holds(trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle(batch_max=5)) as model:
        found = model.predict(list(IMAGES[:12]))
    assert [sorted(row) for row in found] == [["age", "gender", "race"]] * 12
    check({"age": np.array([[row["age"].value] for row in found], np.float32)}, IMAGES[:12])


def test_a_batch_beyond_the_profile_is_an_image_error(trt: Any, engine_bundle: EngineBundle) -> None:
    with (
        load(engine_bundle()) as model,
        pytest.raises(ImageError, match="got a batch of 9; this artifact takes 1 to 8"),
    ):
        model(IMAGES[:9])


def test_a_manifest_that_promises_too_much_gives_the_librarys_words(trt: Any, engine_bundle: EngineBundle) -> None:
    from tests.fakes.tensorrt import make_plan

    with load(engine_bundle(plans=lambda graph: make_plan(graph, 2))) as model:
        with pytest.raises(RunError, match=r"TensorRT 10\.3\.0 failed \(binding\): .*batch 3 is outside the profile"):
            model(IMAGES[:3])
        check(model(IMAGES[:2]), IMAGES[:2])


def test_outputs_are_not_overwritten_by_later_calls(trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:
        outputs = [(start, model(IMAGES[start : start + 4])) for start in range(8)]
    arrays = [values for _, found in outputs for values in found.values()]
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations(arrays, 2))
    for start, found in outputs:
        check(found, IMAGES[start : start + 4])


def test_some_tasks_may_be_asked_for_and_separate_engines_run(trt: Any, engine_bundle: EngineBundle) -> None:
    bundle = engine_bundle()
    with load(bundle) as model:
        assert list(model(IMAGES[:2], tasks=("race", "age"))) == ["race", "age"]
    with load(bundle / "separate" / "gender.trt") as model:
        check(model(IMAGES[:3]), IMAGES[:3])


def test_host_buffers_are_written_in_place(trt: Any, engine_bundle: EngineBundle) -> None:
    ages = np.zeros((4, 1), np.float32)
    with load(engine_bundle()) as model:
        for start in range(4):
            found = model(IMAGES[start : start + 4], out={"age": ages})
            assert found["age"] is ages
            check(found, IMAGES[start : start + 4])


def test_pinned_arrays_are_read_where_they_lie(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:
        model(IMAGES[:8])
        images = model.pinned(8)
        assert images.shape == (8, 8, 8, 3)
        for start in range(4):
            images[...] = IMAGES[start : start + 8]
            check(model(images), IMAGES[start : start + 8])
            check(model(images[:3]), IMAGES[start : start + 3])
            check(model(images[3:5]), IMAGES[start + 3 : start + 5])  # not at a pinned address of ours
        count = machine.cuda.live()["pinned"]
        del images
        gc.collect()
        assert machine.cuda.live()["pinned"] == count - 1


def test_a_pinned_array_outlives_its_model(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    model = load(engine_bundle())
    images = model.pinned(2)
    images[...] = IMAGES[:2]
    model.close()
    assert machine.cuda.live()["pinned"] == 1
    np.testing.assert_array_equal(images, IMAGES[:2])
    with pytest.raises(RunError, match="closed"):
        model.pinned(2)


def test_alternating_batches_allocate_nothing_once_they_fit(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle(), cuda_graphs=0) as model:
        model(IMAGES[:8])
        before = machine.cuda.calls["cuMemAlloc"], machine.cuda.calls["cuMemHostAlloc"]
        for batch in (1, 8, 3, 5, 8, 1):
            check(model(IMAGES[:batch]), IMAGES[:batch])
        assert (machine.cuda.calls["cuMemAlloc"], machine.cuda.calls["cuMemHostAlloc"]) == before


def test_ten_thousand_calls_leak_nothing(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:
        images = IMAGES[:2]
        for _ in range(500):
            model(images)
        live, resident = machine.cuda.live(), resident_bytes()
        for _ in range(10_000):
            model(images)
        assert machine.cuda.live() == live
        assert resident_bytes() - resident < 8 << 20


def test_closing_frees_everything_and_a_closed_model_says_so(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    bundle = engine_bundle()
    model = load(bundle)
    for _ in range(3):
        model(IMAGES[:2])
    model.close()
    model.close()
    assert not any(machine.cuda.live().values())
    with pytest.raises(RunError, match="the model is closed; load it again"):
        model(IMAGES[:2])
    with load(bundle) as again:  # in a thread whose context has gone meanwhile
        check(again(IMAGES[:2]), IMAGES[:2])


def test_a_model_that_is_dropped_frees_everything(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    model = load(engine_bundle())
    model(IMAGES[:2])
    del model
    gc.collect()
    assert not any(machine.cuda.live().values())


def test_two_models_do_not_take_each_others_context_away(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    bundle = engine_bundle()
    first = load(bundle)
    first(IMAGES[:2])
    second = load(bundle)
    first.close()
    assert machine.cuda.live()["retained"] == 1
    for _ in range(3):
        check(second(IMAGES[:2]), IMAGES[:2])
    second.close()
    assert not any(machine.cuda.live().values())


# what goes wrong


def test_a_corrupt_plan_is_a_backend_error_with_the_librarys_reason(trt: Any, engine_bundle: EngineBundle) -> None:
    bundle = engine_bundle(plans=lambda graph: b"NOPLAN")
    with pytest.raises(BackendError, match=r"refuses it: Serialization \(Serialization assertion header\.magicTag"):
        load(bundle, backend="tensorrt")


def test_a_changed_plan_never_reaches_the_library(trt: Any, engine_bundle: EngineBundle) -> None:
    bundle = engine_bundle()
    file = bundle / "fp16.trt"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match=r"fp16\.trt: SHA-256 is"):
        load(bundle)
    assert trt.deserialized == []


def test_options_that_make_no_sense_are_refused(trt: Any, engine_bundle: EngineBundle) -> None:
    bundle = engine_bundle()
    with pytest.raises(OptionError, match="contexts=0"):
        load(bundle, contexts=0)
    with pytest.raises(OptionError, match="graphs=-1"):
        load(bundle, cuda_graphs=-1)


@pytest.mark.parametrize("limit", [100, 5000, 12_500])
def test_no_memory_at_loading_is_a_device_memory_error(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, limit: int
) -> None:
    bundle = engine_bundle()
    machine.cuda.limit = limit
    with pytest.raises(DeviceMemoryError):
        load(bundle)
    machine.cuda.limit = 1 << 20
    with load(bundle) as model:
        check(model(IMAGES[:2]), IMAGES[:2])


def test_no_memory_to_grow_leaves_a_model_that_runs_smaller_batches(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        check(model(IMAGES[:2]), IMAGES[:2])
        machine.cuda.limit = sum(block.size for block in machine.cuda.blocks.values()) + 256
        with pytest.raises(DeviceMemoryError, match="the GPU's memory is full"):
            model(IMAGES[:8])
        for _ in range(3):
            check(model(IMAGES[:2]), IMAGES[:2])


def test_no_pinned_memory_is_a_device_memory_error(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:
        machine.cuda.fail("cuMemHostAlloc", "OUT_OF_MEMORY", nth=2)
        with pytest.raises(DeviceMemoryError):
            model(IMAGES[:2])
        check(model(IMAGES[:2]), IMAGES[:2])


def test_after_a_lost_device_models_close_and_the_error_says_to_start_again(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    bundle = engine_bundle()
    model, other = load(bundle), load(bundle)
    model(IMAGES[:2])
    machine.cuda.lose("ILLEGAL_ADDRESS")
    for broken in (model, other):
        with pytest.raises(DeviceLostError, match=r"ILLEGAL_ADDRESS.*close its models and start the process again"):
            broken(IMAGES[:2])
    model.close()
    other.close()
    assert not any(machine.cuda.live().values())
    for _ in range(2):  # CUDA asks for a new process; a reset has not helped
        with pytest.raises(DeviceLostError, match="start the process again"):
            load(bundle)
    assert not any(machine.cuda.live().values())


def test_where_a_reset_helps_a_model_can_be_loaded_again(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    bundle = engine_bundle()
    machine.cuda.mends = True
    model, other = load(bundle), load(bundle)
    machine.cuda.lose("ILLEGAL_ADDRESS")
    with pytest.raises(DeviceLostError):
        model(IMAGES[:2])
    model.close()
    with pytest.raises(DeviceLostError):  # the other model is still there: its handles must not meet a new context
        load(bundle)
    other.close()
    with load(bundle) as again:
        check(again(IMAGES[:2]), IMAGES[:2])


def test_a_model_can_be_loaded_again_while_the_error_is_handled(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    bundle = engine_bundle()
    machine.cuda.mends = True
    model = load(bundle)
    model(IMAGES[:2])
    machine.cuda.lose("LAUNCH_FAILED")
    with pytest.raises(DeviceLostError, match="LAUNCH_FAILED") as caught:
        model(IMAGES[:2])
    model.close()
    with load(bundle) as again:
        check(again(IMAGES[:2]), IMAGES[:2])
    assert caught.value.__traceback__ is not None


def test_a_lost_device_that_the_library_notices_first_is_told_apart(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    model = load(engine_bundle(), cuda_graphs=0)
    model(IMAGES[:2])
    lane = model.backend._free[0]  # type: ignore[attr-defined]
    machine.cuda.blocks.clear()  # the next kernel reads what is not there
    with pytest.raises(DeviceLostError):
        model(IMAGES[:2])
    machine.cuda.violations.clear()
    del lane
    model.close()
    machine.cuda.violations.clear()


def test_an_enqueue_that_fails_leaves_the_model_usable(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        model(IMAGES[:2])
        for name in ("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuGraphLaunch", "cuStreamSynchronize"):
            for _ in range(3):
                model(IMAGES[:2])
            machine.cuda.fail(name, "UNKNOWN")
            with pytest.raises(RunError, match="CUDA failed: CUDA_ERROR_UNKNOWN"):
                model(IMAGES[: 2 if name == "cuGraphLaunch" else 1] if "Memcpy" not in name else IMAGES[:3])
            check(model(IMAGES[:2]), IMAGES[:2])


def test_a_manifest_can_be_read_back(engine_bundle: EngineBundle) -> None:
    artifacts = open_bundle(engine_bundle()).manifest.artifacts
    assert sum(artifact.backend == "tensorrt" for artifact in artifacts) == 8
