"""CUDA in one thin layer: streams, events, graphs, pinned and device memory. The only importer of cuda-bindings.

It speaks the driver API, in the context that is current (:mod:`~mtl_deploy.runtime.cuda.context`). Every return code is checked,
through :mod:`~mtl_deploy.runtime.cuda.calls`.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.errors import DriverFunctionError, RunError

from .calls import check, driver, elapsed_time, error_of

if TYPE_CHECKING:
    from .context import Context

ALIGNMENT = 256  # bytes; TensorRT requires it of every tensor's address


class Stream:
    """A CUDA stream that does not wait for the legacy default stream."""

    def __init__(self) -> None:
        self._cuda = cuda = driver()
        self._stream = check(cuda.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self.handle = int(self._stream)

    def close(self) -> None:
        """Destroy it once its work is done."""
        if self.handle:
            self.handle = 0
            check(self._cuda.cuStreamDestroy(self._stream))


def synchronize(stream: int) -> None:
    """Wait for a stream's work."""
    code = driver().cuStreamSynchronize(stream)[0]
    if code != 0:
        raise error_of(code)


class Event:
    """A CUDA event.

    Args:
        timing: whether it measures time; other events are cheaper.
    """

    def __init__(self, *, timing: bool = False) -> None:
        self._cuda = cuda = driver()
        flags = cuda.CUevent_flags
        self._event = check(cuda.cuEventCreate(flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING))

    def record(self, stream: int) -> None:
        """Mark the current point of a stream's work."""
        check(self._cuda.cuEventRecord(self._event, stream))

    def make_wait(self, stream: int) -> None:
        """Make a stream's later work wait for the mark."""
        check(self._cuda.cuStreamWaitEvent(stream, self._event, 0))

    def synchronize(self) -> None:
        """Wait for the mark."""
        check(self._cuda.cuEventSynchronize(self._event))

    def since(self, earlier: Event) -> float:
        """Return the milliseconds of GPU time between two marks; both have ``timing``."""
        try:
            return float(check(self._cuda.cuEventElapsedTime(earlier._event, self._event)))
        except DriverFunctionError:  # cuda-bindings 13 asks for the one of CUDA 12.8
            return elapsed_time(int(earlier._event), int(self._event))

    def close(self) -> None:
        """Destroy it."""
        if self._event is not None:
            event, self._event = self._event, None
            check(self._cuda.cuEventDestroy(event))


class DeviceMemory:
    """A block of the GPU's memory, aligned to 256 bytes.

    Attributes:
        address: on the device.
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        self._cuda = cuda = driver()
        self.size = size
        self.address = int(check(cuda.cuMemAlloc(max(size, 1))))

    def close(self) -> None:
        """Free it, once the work that uses it is done. Freeing twice is allowed."""
        if self.address:
            address, self.address = self.address, 0
            check(self._cuda.cuMemFree(address))


class PinnedMemory:
    """Page-locked host memory: the only kind that is copied asynchronously. Freed with its last array.

    Attributes:
        address: on the host.
        size: in bytes.
    """

    def __init__(self, size: int, context: Context) -> None:
        cuda = driver()
        self.size = max(size, 1)
        flags = int(cuda.CU_MEMHOSTALLOC_PORTABLE)  # pinned for every context of the process
        self.address = int(check(cuda.cuMemHostAlloc(self.size, flags)))
        context.hold()  # the memory would be freed with its context, and whoever reads the array would crash
        # a class of our own, as finalizers need weak references
        kind: Any = type("Block", (ctypes.c_uint8 * self.size,), {})
        block = kind.from_address(self.address)
        weakref.finalize(block, _free_pinned, context, self.address).atexit = False
        self._block = block
        self._bytes: Array = np.frombuffer(block, np.uint8)

    def when_freed(self, call: Callable[[int], None], argument: int) -> None:
        """Call a function when the last array is deleted."""
        weakref.finalize(self._block, call, argument).atexit = False

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0) -> Array:
        """Return an array over the memory, which it keeps alive."""
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        found: Array = self._bytes[offset : offset + size].view(dtype).reshape(shape)
        return found


def _free_pinned(context: Context, address: int) -> None:
    with suppress(RunError), context.active():
        check(driver().cuMemFreeHost(address))
    context.drop()


def copy_to_device(device: int, host: int, size: int, stream: int) -> None:
    """Copy bytes asynchronously; the host's memory is pinned."""
    code = driver().cuMemcpyHtoDAsync(device, host, size, stream)[0]
    if code != 0:
        raise error_of(code)


def copy_to_host(host: int, device: int, size: int, stream: int) -> None:
    """Copy bytes asynchronously; the host's memory is pinned."""
    code = driver().cuMemcpyDtoHAsync(host, device, size, stream)[0]
    if code != 0:
        raise error_of(code)


def copy_on_device(target: int, source: int, size: int, stream: int) -> None:
    """Copy bytes on the device asynchronously."""
    check(driver().cuMemcpyDtoDAsync(target, source, size, stream))


def device_of(address: int) -> int | None:
    """Return CUDA's number of the GPU whose memory an address is in; None where there is one GPU only, or others can reach it.

    None is also the answer for managed, pinned and host memory, and for addresses that the driver does not know.
    """
    cuda = driver()
    if check(cuda.cuDeviceGetCount()) < 2:
        return None
    found = []
    kinds = cuda.CUpointer_attribute
    for kind in (
        kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        kinds.CU_POINTER_ATTRIBUTE_IS_MANAGED,
        kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
    ):
        code, value = cuda.cuPointerGetAttribute(kind, address)
        if code != 0:
            return None
        found.append(int(value))
    return found[2] if found[0] == int(cuda.CUmemorytype.CU_MEMORYTYPE_DEVICE) and not found[1] else None


class CudaGraph:
    """A stream's work, recorded once and launched as a whole.

    Args:
        stream: to record on.
        work: enqueues the work on the stream; it must not wait or allocate.

    Raises:
        RunError: the work cannot be captured; none of it has run, and the stream can be used.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._cuda = cuda = driver()
        mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL  # other threads may allocate meanwhile
        check(cuda.cuStreamBeginCapture(stream, mode))
        done = False
        try:
            work()
            done = True
        finally:  # also ends a capture that the work made invalid
            code, graph = cuda.cuStreamEndCapture(stream)
            if code == 0 and not done:
                cuda.cuGraphDestroy(graph)
        check((code,))
        try:
            self._graph = check(cuda.cuGraphInstantiate(graph, 0))
        finally:
            check(cuda.cuGraphDestroy(graph))

    def launch(self, stream: int) -> None:
        """Enqueue the work."""
        code = self._cuda.cuGraphLaunch(self._graph, stream)[0]
        if code != 0:
            raise error_of(code)

    def close(self) -> None:
        """Destroy it, once its launches are done."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            check(self._cuda.cuGraphExecDestroy(graph))
