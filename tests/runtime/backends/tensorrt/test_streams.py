from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import BackendError, DeviceArray, ImageError, OptionError, RunError, load
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import device_of
from tests.fakes.gpu import IMAGES, EngineBundle, GpuArray, Simulation, check


def host(driver: Any, array: DeviceArray) -> np.ndarray:
    """Return what a device array holds now; nothing is waited for."""
    return GpuArray.read(SimpleNamespace(shape=array.shape, dtype=array.dtype, address=array.address))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["version 3", "version 2", "dlpack"])
@pytest.mark.parametrize("offset", [0, 256, 64, 4])
def test_an_array_on_the_gpu_is_waited_for_and_read_where_it_lies(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, form: str, offset: int
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle()) as model:
        model(IMAGES[:4])
        for start in range(4):
            stream = 1 if form == "version 2" else driver.new_stream()
            images = GpuArray(driver, IMAGES[start : start + 4], stream=stream, offset=offset)
            shape = {
                "version 3": lambda images=images: images.interface(),
                "version 2": lambda images=images: images.interface(version=2),
                "dlpack": lambda images=images: images.dlpack(byte_offset=offset),
            }
            array = shape[form]()
            if form == "version 2":
                del array.__cuda_array_interface__["stream"]
            copies = driver.calls["cuMemcpyHtoDAsync"], driver.calls["cuMemcpyDtoDAsync"]
            check(model(array), IMAGES[start : start + 4])
            if start == 0:  # before anything is recorded, every copy is a call
                aligned = offset % 256 == 0
                assert driver.calls["cuMemcpyHtoDAsync"] == copies[0]
                assert driver.calls["cuMemcpyDtoDAsync"] == copies[1] + (not aligned)
            images.free()
            driver.streams.pop(stream, None)


def test_a_producer_on_a_blocking_stream_is_waited_for_by_the_default_one(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with machine.as_torch(), load(engine_bundle()) as model:
        stream = machine.cuda.new_stream(blocking=True)
        images = GpuArray(machine.cuda, IMAGES[:4], stream=stream)
        assert not np.array_equal(images.read(), IMAGES[:4])  # the producer is not done
        check(model(images.interface(version=2, stream=1)), IMAGES[:4])
        np.testing.assert_array_equal(images.read(), IMAGES[:4])
        images.free()
        machine.cuda.cuStreamDestroy(stream)


def test_a_producer_without_a_stream_of_its_own_in_the_interface_is_asked_by_dlpack(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with machine.as_torch(), load(engine_bundle()) as model:
        stream = machine.cuda.new_stream()  # torch.cuda.stream(...): the interface does not tell
        images = GpuArray(machine.cuda, IMAGES[:4], stream=stream)
        tensor = images.dlpack()
        fields = {"shape": images.shape, "typestr": "|u1", "data": (images.address, False), "version": 2}
        tensor.__cuda_array_interface__ = fields  # type: ignore[attr-defined]
        check(model(tensor), IMAGES[:4])
        assert tensor.asked
        images.free()
        machine.cuda.cuStreamDestroy(stream)


def stream_objects(handle: int) -> dict[str, Any]:
    return {
        "int": handle,
        "torch": SimpleNamespace(cuda_stream=handle),
        "cupy": SimpleNamespace(ptr=handle),
        "pycuda": SimpleNamespace(handle=handle),
        "cuda.core": SimpleNamespace(__cuda_stream__=lambda: (0, handle)),
        "cuda.core, a property": SimpleNamespace(__cuda_stream__=(0, handle)),
    }


@pytest.mark.parametrize("kind", list(stream_objects(1)))
def test_outputs_left_on_the_gpu_are_computed_behind_the_callers_stream(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, kind: str
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle()) as model:
        handle = driver.new_stream()
        stream = stream_objects(handle)[kind]
        kept = []
        waits = driver.waits
        for start in range(5):
            images = GpuArray(driver, IMAGES[start : start + 4], stream=handle)
            kept.append((start, images, model(images.interface(), stream=stream, on_device=True)))
        assert driver.waits == waits
        assert all(array.__cuda_array_interface__["stream"] == handle for array in kept[0][2].values())
        driver.cuStreamSynchronize(handle)
        for start, images, outputs in kept:
            found = {task: host(driver, array) for task, array in outputs.items()}
            check(found, IMAGES[start : start + 4])
            images.free()
        del kept, outputs
        gc.collect()
        driver.cuStreamDestroy(handle)


def test_a_host_input_on_the_callers_stream_is_not_overwritten_by_the_next_call(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle()) as model:
        handle = driver.new_stream()
        kept = [model(IMAGES[i : i + 2], stream=handle, on_device=True) for i in range(4)]
        assert driver.streams[handle].work  # what the last call put there has not run
        after = model(IMAGES[6:8])  # on the runtime's own stream, behind the caller's
        check(after, IMAGES[6:8])
        driver.cuStreamSynchronize(handle)
        for i, outputs in enumerate(kept):
            check({task: host(driver, array) for task, array in outputs.items()}, IMAGES[i : i + 2])
        kept.clear()
        outputs.clear()
        driver.cuStreamDestroy(handle)


def test_a_pinned_input_on_the_callers_stream_waits_for_nothing(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle()) as model:
        handle, images = driver.new_stream(), model.pinned(4)
        images[...] = IMAGES[:4]
        model(images)
        waits = driver.waits
        kept = [model(images, stream=handle, on_device=True) for _ in range(4)]
        assert driver.waits == waits
        driver.cuStreamSynchronize(handle)
        for outputs in kept:
            check({task: host(driver, array) for task, array in outputs.items()}, IMAGES[:4])
        kept.clear()
        outputs.clear()
        driver.cuStreamDestroy(handle)


def test_calls_on_several_streams_wait_for_one_another(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle(), contexts=1) as model:
        handles = [driver.new_stream(), driver.new_stream(), 0]
        model(IMAGES[:8])
        images = [GpuArray(driver, IMAGES[i : i + 4], stream=handles[i % 3]) for i in range(9)]
        outputs = [
            model(array.interface(stream=handles[i % 3] or 1), stream=handles[i % 3], on_device=True)
            for i, array in enumerate(images)
        ]
        for handle in reversed(handles):
            driver.cuStreamSynchronize(handle)
        for i, found in enumerate(outputs):
            check({task: host(driver, array) for task, array in found.items()}, IMAGES[i : i + 4])
        assert outputs[2]["age"].__cuda_array_interface__["stream"] == 1  # the interface forbids 0
        outputs.clear()
        found.clear()
        for array in images:
            array.free()
        for handle in handles[:2]:
            driver.cuStreamDestroy(handle)


def test_host_outputs_on_the_callers_stream_are_waited_for(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with machine.as_torch(), load(engine_bundle()) as model:
        handle = machine.cuda.new_stream()
        for start in range(4):
            waits = machine.cuda.waits
            check(model(IMAGES[start : start + 3], stream=handle), IMAGES[start : start + 3])
            assert machine.cuda.waits == waits + 1
        machine.cuda.cuStreamDestroy(handle)


def test_outputs_on_the_gpu_without_a_stream_are_computed_on_return(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    with load(engine_bundle()) as model:
        outputs = [model(IMAGES[i : i + 3], on_device=True, tasks=("race",)) for i in range(4)]
        for i, found in enumerate(outputs):
            assert found["race"].__cuda_array_interface__["stream"] is None
            check({"race": host(machine.cuda, found["race"])}, IMAGES[i : i + 3])
    assert machine.cuda.live()["allocations"] == 4  # they outlive the model
    check({"race": host(machine.cuda, outputs[3]["race"])}, IMAGES[3:6])


@pytest.mark.parametrize("form", ["interface", "dlpack"])
def test_buffers_on_the_gpu_are_written_in_place_behind_their_readers(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, form: str
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle()) as model:
        reader = driver.new_stream()
        memory = GpuArray(driver, np.zeros((4, 3), np.float32))
        seen = []
        for start in range(5):
            if start:
                driver.enqueue(reader, lambda: seen.append(memory.read().copy()))
            memory.stream = reader
            buffer = getattr(memory, form)()
            found = model(IMAGES[start : start + 4], out={"race": buffer})
            assert found["race"] is buffer
            check({task: found[task] for task in ("age", "gender")}, IMAGES[start : start + 4])
            check({"race": memory.read()}, IMAGES[start : start + 4])
        for start, values in enumerate(seen):
            check({"race": values}, IMAGES[start : start + 4])
        assert len(seen) == 4
        memory.free()
        driver.cuStreamDestroy(reader)


def test_buffers_and_images_on_the_gpu_that_cannot_be_used_are_refused(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    driver = machine.cuda
    with machine.as_torch(), load(engine_bundle()) as model:
        memory = GpuArray(driver, np.zeros((4, 3), np.float32), offset=16)
        aligned = memory.address - 16, False
        for buffer, message in (
            (memory.interface(), "must be writable and aligned to 256 bytes"),
            (memory.interface(data=(aligned[0], True)), "must be writable"),
            (memory.interface(data=aligned, shape=(3, 4)), r"expected float32 \(4, 3\)"),
            (memory.interface(data=aligned, typestr="<f8"), "got float64"),
            (memory.interface(data=aligned, strides=(4, 16)), r"out\['race'\] is not C-contiguous"),
        ):
            with pytest.raises(ImageError, match=message):
                model(IMAGES[:4], out={"race": buffer})
        images = GpuArray(driver, IMAGES[:4])
        for image, message in (
            (images.interface(strides=(192, 1, 8, 64)), "the image is not C-contiguous"),
            (images.interface(typestr="|i1"), "got int8"),
            (images.dlpack(code=6), "DLPack type code 6"),
            (images.interface(shape=(4, 8, 3, 8)), "on the GPU for"),
        ):
            image.shape = images.shape
            with pytest.raises(ImageError, match=message):
                model(image)
        with pytest.raises(OptionError, match="stream is str"):
            model(IMAGES[:2], stream="0")
        check(model(IMAGES[:4]), IMAGES[:4])
        memory.free()
        images.free()


def test_a_stream_that_does_not_exist_is_a_run_error(trt: Any, engine_bundle: EngineBundle) -> None:
    with load(engine_bundle()) as model:
        with pytest.raises(RunError, match="INVALID_HANDLE"):
            model(IMAGES[:2], stream=0xBAD0)
        check(model(IMAGES[:2]), IMAGES[:2])


def test_a_graph_takes_no_arrays_on_the_gpu(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    with machine.as_torch(), load(engine_bundle(), backend="onnxruntime") as model:
        images = GpuArray(machine.cuda, IMAGES[:4])
        with pytest.raises(BackendError, match="need an engine"):
            model(images.interface())
        images.free()


def test_torchs_context_is_kept_as_long_as_the_model_and_no_longer(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle
) -> None:
    bundle = engine_bundle()
    with machine.as_torch():
        model = load(bundle)
        check(model(IMAGES[:2]), IMAGES[:2])
        assert machine.cuda.live()["retained"] > 1
    check(model(IMAGES[:2]), IMAGES[:2])  # torch has let it go
    model.close()
    assert machine.cuda.live()["retained"] == 0


@pytest.mark.parametrize("way", ["interface", "dlpack"])
def test_an_array_on_another_gpu_is_refused(
    machine: Simulation, trt: Any, engine_bundle: EngineBundle, way: str
) -> None:
    machine.cuda.add_device()
    machine.libcuda.devices = 2
    context = Context(1)
    with context.active():
        elsewhere = GpuArray(machine.cuda, IMAGES[:2])
        wrong = GpuArray(machine.cuda, np.zeros((2, 1), np.float32))
    with load(engine_bundle(), device=0) as model, model.backend.loaded.context.active():  # type: ignore[attr-defined]
        here, target = GpuArray(machine.cuda, IMAGES[:2]), GpuArray(machine.cuda, np.zeros((2, 1), np.float32))
        check(model(here.interface()), IMAGES[:2])
        check(model(here.dlpack()), IMAGES[:2])
        given = elsewhere.interface() if way == "interface" else elsewhere.dlpack(number=1)
        with pytest.raises(ImageError, match=r"the image is on GPU 1, the model is on GPU 0; .* device=1"):
            model(given)
        if way == "dlpack":
            assert given.asked == []  # a stream of GPU 0 means nothing to its library
        out = wrong.interface() if way == "interface" else wrong.dlpack(number=1)
        with pytest.raises(ImageError, match=r"out\['age'\] is on GPU 1, the model is on GPU 0"):
            model(IMAGES[:2], tasks=("age",), out={"age": out})
        model(IMAGES[:2], tasks=("age",), out={"age": target.interface()})
        check({"age": target.read()}, IMAGES[:2])
        here.free()
        target.free()
    with context.active():
        elsewhere.free()
        wrong.free()
    context.close()


def test_what_every_gpu_reaches_is_on_none(machine: Simulation, trt: Any, engine_bundle: EngineBundle) -> None:
    machine.cuda.add_device()
    machine.libcuda.devices = 2
    with load(engine_bundle(), device=0) as model, model.backend.loaded.context.active():  # type: ignore[attr-defined]
        managed = GpuArray(machine.cuda, IMAGES[:2])
        check(model(managed.dlpack(device=13, number=1)), IMAGES[:2])
        assert device_of(managed.address) == 0
        assert device_of(0x7F0000000000) is None  # nobody's that the driver knows
        pinned = model.pinned(1)
        assert device_of(pinned.ctypes.data) is None
        managed.free()
