"""Work through the runtime's CUDA layer with the real cuda-bindings over the small libcuda. Runs in a process of its own.

    python probe_cuda.py "" "[]"

Prints as JSON what came of it, and which of the driver's functions were called.
"""

from __future__ import annotations

import ctypes
import gc
import json
from collections.abc import Callable
from typing import Any

import cuda.bindings
import numpy as np

from mtl_deploy.runtime.cuda import context as cuda_context
from mtl_deploy.runtime.cuda import driver as layer
from mtl_deploy.runtime.cuda import gpu
from mtl_deploy.runtime.cuda.calls import driver
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.errors import MtlError

UNKNOWN, UNKNOWN_LOST, NAMELESS = 9999, 9998, 8888  # codes that no cuda-bindings knows; the driver has names for two


def error_of(work: Callable[[], object]) -> str | None:
    """Return an error of ours as text; any other passes, and fails the test."""
    try:
        work()
    except MtlError as error:
        return f"{type(error).__name__}: {error}"
    return None


def copies(context: Context) -> bool:
    """Have bytes go to the device, within it, and back."""
    stream, memory = layer.Stream(), [layer.DeviceMemory(64), layer.DeviceMemory(64)]
    pinned = [layer.PinnedMemory(64, context), layer.PinnedMemory(64, context)]
    source, target = (block.array(np.dtype(np.uint8), (64,)) for block in pinned)
    source[...] = np.arange(64)
    layer.copy_to_device(memory[0].address, pinned[0].address, 64, stream.handle)
    layer.copy_on_device(memory[1].address, memory[0].address, 64, stream.handle)
    layer.copy_to_host(pinned[1].address, memory[1].address, 64, stream.handle)
    layer.synchronize(stream.handle)
    same = bool((source == target).all())
    for resource in (stream, *memory):
        resource.close()
    return same


def events() -> float:
    stream, start, end = layer.Stream(), layer.Event(timing=True), layer.Event(timing=True)
    start.record(stream.handle)
    end.record(stream.handle)
    end.make_wait(stream.handle)
    end.synchronize()
    found = end.since(start)
    for resource in (stream, start, end, layer.Event()):
        resource.close()
    return found


def graphs() -> list[str | None]:
    stream = layer.Stream()
    work = layer.CudaGraph(stream.handle, lambda: None)
    work.launch(stream.handle)
    work.close()

    def give_up() -> None:
        raise gpu.NoGpuError("given up")

    found = [error_of(lambda: layer.CudaGraph(stream.handle, give_up))]
    stream.close()
    return found


def failures(fail: Callable[[str, int], None]) -> dict[str, str | None]:
    """Have functions answer with codes that these bindings know, and with codes of tomorrow's drivers."""
    stream = layer.Stream()
    found = {}
    for code in (2, 700, 999, UNKNOWN, UNKNOWN_LOST, NAMELESS):
        fail("cuStreamSynchronize", code)
        found[str(code)] = error_of(lambda: layer.synchronize(stream.handle))
        fail("cuMemAlloc", code)
        assert found[str(code)] == error_of(lambda: layer.DeviceMemory(64)), code
    stream.close()
    return found


def main() -> None:
    library = ctypes.CDLL("libcuda.so.1")
    fail: Callable[[str, int], None] = lambda name, code: library.sim_fail(name.encode(), code)  # noqa: E731
    found: dict[str, Any] = {"bindings": cuda.bindings.__version__, "gpu": [gpu.find_gpu().name, gpu.find_gpu().driver]}
    context, second = Context(), Context()
    found["memory"] = context.memory()
    second.close()
    pushed = context.enter()
    context.leave(pushed)
    with context.active():
        found["copies"], found["elapsed"], found["graphs"] = copies(context), events(), graphs()
        memory = layer.DeviceMemory(64)
        found["device"] = layer.device_of(memory.address)
        memory.close()
        found["failures"] = failures(fail)
    gc.collect()
    context.close(lost=True)  # resets it
    driver().cuCtxSetCurrent(driver().cuDevicePrimaryCtxRetain(0)[1])
    cuda_context._primaries.clear()  # as where PyTorch has made it current, and this process' runtime has not seen it
    of_somebody = Context()
    found["borrowed"] = of_somebody.borrowed
    of_somebody.enter()
    of_somebody.close()
    found["called"] = sorted(name for name in vars(driver()) if name.startswith("cu"))
    print(json.dumps(found))


main()
