from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import BackendError, DeviceLostError, DeviceMemoryError, NoGpuError, RunError
from mtl_deploy.runtime.cuda import calls as cuda_calls
from mtl_deploy.runtime.cuda import driver as cuda
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import CudaGraph, DeviceMemory, Event, PinnedMemory, Stream
from tests.fakes.gpu import Simulation


def test_errors_are_told_apart(machine: Simulation) -> None:
    codes = machine.cuda.CUresult
    assert cuda.check((codes.CUDA_SUCCESS, 5)) == 5
    assert cuda.check((codes.CUDA_SUCCESS,)) is None
    with pytest.raises(DeviceMemoryError, match=r"memory is full \(CUDA_ERROR_OUT_OF_MEMORY\); close other models"):
        cuda.check((codes.CUDA_ERROR_OUT_OF_MEMORY, None))
    with pytest.raises(DeviceLostError, match=r"unusable \(CUDA_ERROR_LAUNCH_TIMEOUT\).*start the process again"):
        cuda.check((codes.CUDA_ERROR_LAUNCH_TIMEOUT,))
    with pytest.raises(RunError, match=r"^CUDA failed: CUDA_ERROR_INVALID_VALUE$") as caught:
        cuda.check((codes.CUDA_ERROR_INVALID_VALUE,))
    assert type(caught.value) is RunError


def test_a_child_after_a_fork_is_told_what_to_do(machine: Simulation) -> None:
    machine.cuda.fail("cuInit", "NOT_INITIALIZED")
    with pytest.raises(RunError, match="does not survive a fork: start processes with 'spawn'"):
        Context()


def test_every_error_that_loses_a_context_exists(machine: Simulation) -> None:
    assert {name for name in cuda_calls._LOST if not hasattr(machine.cuda.CUresult, name)} == set()


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (99999, RunError, r"^CUDA failed: error 99999$"),
        (
            2,
            DeviceMemoryError,
            "CUDA_ERROR_OUT_OF_MEMORY",
        ),  # newer drivers' codes have names that the driver itself knows
        (700, DeviceLostError, "CUDA_ERROR_ILLEGAL_ADDRESS"),
    ],
)
@pytest.mark.parametrize("name", ["cuStreamSynchronize", "cuMemcpyHtoDAsync", "cuMemAlloc", "cuStreamCreate"])
def test_a_code_that_the_bindings_do_not_know_is_an_error_like_any_other(
    machine: Simulation, name: str, code: int, kind: type[RunError], message: str
) -> None:
    context = Context()
    with context.active():
        stream, memory = Stream(), DeviceMemory(64)
        calls: dict[str, Callable[[], object]] = {
            "cuStreamSynchronize": lambda: cuda.synchronize(stream.handle),
            "cuMemcpyHtoDAsync": lambda: cuda.copy_to_device(memory.address, memory.address, 64, stream.handle),
            "cuMemAlloc": lambda: DeviceMemory(64),
            "cuStreamCreate": Stream,
        }
        machine.cuda.fail(name, code)
        with pytest.raises(kind, match=message) as caught:
            calls.pop(name)()
        assert type(caught.value) is kind
        stream.close()
        memory.close()
    context.close()


@pytest.mark.parametrize(("version", "bindings"), [(12060, 12), (12060, 13), (12080, 13), (13000, 13)])
def test_time_between_events_is_measured_on_every_driver(machine: Simulation, version: int, bindings: int) -> None:
    machine.cuda.version, machine.cuda.bindings = version, bindings
    context = Context()
    with context.active():
        stream, start, end = Stream(), Event(timing=True), Event(timing=True)
        start.record(stream.handle)
        end.record(stream.handle)
        end.synchronize()
        assert end.since(start) == 1.0
        for resource in (stream, start, end):
            resource.close()
    context.close()


@pytest.mark.parametrize(
    "text", ["function cuStreamSynchronize_v9 is not found", 'Function "cuStreamSynchronize_v9" not found']
)
def test_a_function_that_the_driver_lacks_is_an_error_of_ours(machine: Simulation, text: str) -> None:
    def missing(stream: int) -> None:
        raise RuntimeError(text)

    def broken(flags: Any) -> None:
        raise RuntimeError("something else")

    machine.cuda.version = 12060
    machine.replace("cuStreamSynchronize", missing)
    for kind in (RunError, BackendError):  # whoever waits for either
        with pytest.raises(kind, match=r"CUDA 12\.6, has no cuStreamSynchronize_v9, .*'cuda-bindings<13'"):
            cuda.synchronize(0)
    machine.replace("cuEventCreate", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):  # a fault of ours is not dressed up
        Event()


def test_missing_bindings_are_a_backend_error(machine: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    cuda_calls.driver.cache_clear()
    with pytest.raises(BackendError, match=r"needs cuda-bindings \(.*pip install 'mtl-deploy\[tensorrt\]'"):
        Context()


def test_a_machine_without_a_gpu_says_so_in_its_own_words(machine: Simulation) -> None:
    machine.libcuda.devices = 0
    with pytest.raises(NoGpuError, match=r"^no CUDA device$"):
        Context()


def test_the_primary_context_goes_with_the_last_that_holds_it(machine: Simulation) -> None:
    first, second = Context(), Context()
    with first.active():
        memory = PinnedMemory(100, first)
    array = memory.array(np.dtype(np.uint8), (100,))
    del memory
    first.close()
    first.close()
    second.close()
    assert machine.cuda.primaries[0].alive
    array[...] = 3
    del array
    gc.collect()
    assert not machine.cuda.primaries[0].alive


def make_pinned_memory_fail(machine: Simulation) -> None:
    machine.cuda.fail("cuMemHostAlloc", "OUT_OF_MEMORY")


def test_pinned_memory_that_is_not_had_holds_nothing(machine: Simulation) -> None:
    context = Context()
    make_pinned_memory_fail(machine)
    with context.active(), pytest.raises(DeviceMemoryError):
        PinnedMemory(100, context)
    context.close()
    assert machine.cuda.live()["retained"] == 0


def test_entering_leaves_a_threads_own_context_as_it_was(machine: Simulation) -> None:
    context = Context()
    own = machine.cuda.foreign_context()
    pushed = context.enter()
    assert pushed
    assert machine.cuda.current() is machine.cuda.primaries[0]
    context.leave(pushed)
    assert machine.cuda.stack == [own]
    with context.active():
        assert machine.cuda.current() is machine.cuda.primaries[0]
    assert machine.cuda.stack == [own]
    context.close()


def test_a_thread_without_a_context_keeps_it_until_it_is_closed(machine: Simulation) -> None:
    context = Context()
    assert not context.enter()
    assert machine.cuda.stack == [machine.cuda.primaries[0]]
    assert not context.enter()
    context.close()
    assert machine.cuda.stack == []


def test_a_context_that_somebody_let_go_is_not_borrowed(machine: Simulation) -> None:
    driver = machine.cuda
    driver.cuCtxPushCurrent(driver.cuDevicePrimaryCtxRetain(0)[1])
    driver.cuDevicePrimaryCtxRelease(0)  # it stays on this thread's stack all the same
    context = Context()
    assert not context.borrowed
    with context.active():
        assert context.memory() == (driver.limit, driver.limit)
    context.close()


@pytest.mark.parametrize("active", [False, True])
def test_a_foreign_context_is_borrowed_and_left_alone(machine: Simulation, active: bool) -> None:
    if active:
        machine.cuda.cuDevicePrimaryCtxRetain(0)
    machine.cuda.foreign_context()
    context = Context()
    assert context.borrowed
    assert context.device == 0
    assert machine.cuda.live()["retained"] == int(active)
    context.close(lost=True)
    assert machine.cuda.calls["cuDevicePrimaryCtxReset"] == 0
    if active:
        machine.cuda.cuDevicePrimaryCtxRelease(0)


def test_the_device_is_the_one_asked_for(machine: Simulation) -> None:
    machine.libcuda.devices = 2
    driver = machine.cuda
    driver.add_device()
    with machine.as_torch():  # on device 0
        other, same = Context(1), Context()
        assert (other.device, same.device) == (1, 0)
        other.close()
        same.close()
    driver.foreign_context(1)
    assert Context().device == 1
    with pytest.raises(BackendError, match="device=0, but this thread's CUDA context is on device 1"):
        Context(0)


def test_pinned_memory_is_freed_with_its_last_array(machine: Simulation) -> None:
    context = Context()
    with context.active():
        memory = PinnedMemory(4096, context)
    gone: list[int] = []
    memory.when_freed(gone.append, 7)
    first = memory.array(np.dtype(np.float32), (8, 2), 256)
    second = first[3:]
    assert first.ctypes.data == memory.address + 256
    del memory, first
    gc.collect()
    assert machine.cuda.live()["pinned"] == 1
    second[...] = 1
    del second
    gc.collect()
    assert machine.cuda.live()["pinned"] == 0
    assert gone == [7]
    context.close()


def test_copies_go_round_and_events_order_streams(machine: Simulation) -> None:
    context = Context()
    with context.active():
        streams = Stream(), Stream()
        start, end = Event(timing=True), Event(timing=True)
        memory = [DeviceMemory(64), DeviceMemory(64)]
        pinned = PinnedMemory(64, context)
        array = pinned.array(np.dtype(np.uint8), (64,))
        array[...] = np.arange(64)
        start.record(streams[0].handle)
        cuda.copy_to_device(memory[0].address, pinned.address, 64, streams[0].handle)
        cuda.copy_on_device(memory[1].address, memory[0].address, 64, streams[0].handle)
        end.record(streams[0].handle)
        end.make_wait(streams[1].handle)
        result = PinnedMemory(64, context)
        cuda.copy_to_host(result.address, memory[1].address, 64, streams[1].handle)
        cuda.synchronize(streams[1].handle)
        np.testing.assert_array_equal(result.array(np.dtype(np.uint8), (64,)), array)
        end.synchronize()
        assert end.since(start) >= 0
        for resource in (*streams, start, end, *memory):
            resource.close()
            resource.close()
    del pinned, result, array
    context.close()


def test_a_capture_that_fails_leaves_the_stream_usable_and_no_graph(machine: Simulation) -> None:
    context = Context()
    with context.active():
        stream = Stream()

        def allocate() -> None:
            DeviceMemory(10)

        def give_up() -> None:
            raise RunError("no")

        with pytest.raises(RunError, match="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
            CudaGraph(stream.handle, allocate)
        with pytest.raises(RunError, match=r"^no$"):
            CudaGraph(stream.handle, give_up)
        machine.cuda.fail("cuGraphInstantiate", "NOT_SUPPORTED")
        with pytest.raises(RunError, match="CUDA_ERROR_NOT_SUPPORTED"):
            CudaGraph(stream.handle, lambda: None)
        assert machine.cuda.live()["graphs"] == 0
        cuda.synchronize(stream.handle)
        graph = CudaGraph(stream.handle, lambda: None)
        graph.launch(stream.handle)
        cuda.synchronize(stream.handle)
        graph.close()
        graph.close()
        stream.close()
    context.close()


def test_the_calls_made_are_those_of_the_real_bindings(machine: Simulation) -> None:
    from tests.fakes.objects import real

    ours = {name for name in dir(machine.cuda) if name.startswith("cu") and name[2:3].isupper()}
    assert {name for name in ours if not callable(getattr(real, name, None))} == set()
