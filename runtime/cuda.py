"""CUDA in one thin layer: contexts, streams, events, graphs, pinned and device memory. The only importer of cuda-bindings.

It speaks the driver API, so that it lives in whatever context the caller has made current (PyTorch's, CuPy's, pycuda's own), and
retains the device's primary context, which PyTorch and CuPy use too, where none is. Every return code is checked.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import numpy as np

from .backend import Array
from .errors import BackendError, DeviceLostError, DeviceMemoryError, RunError
from .gpu import find_gpu

ALIGNMENT = 256  # bytes; TensorRT asks it of every tensor's address

_LOST = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        *("DEINITIALIZED", "DEVICE_UNAVAILABLE", "ECC_UNCORRECTABLE", "NVLINK_UNCORRECTABLE", "ILLEGAL_ADDRESS"),
        *("LAUNCH_TIMEOUT", "ASSERT", "HARDWARE_STACK_ERROR", "ILLEGAL_INSTRUCTION", "MISALIGNED_ADDRESS"),
        *("INVALID_ADDRESS_SPACE", "INVALID_PC", "LAUNCH_FAILED", "CONTEXT_IS_DESTROYED", "CONTAINED"),
        *("EXTERNAL_DEVICE", "TENSOR_MEMORY_LEAK"),
    )
)
"""Errors after which each further call in the context fails too (CUDA driver API, "CUresult")."""


@lru_cache(maxsize=1)
def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise BackendError(
            f"running an engine needs cuda-bindings ({error}): pip install 'mtl-deploy[tensorrt]' or 'mtl-deploy[tensorrt-rtx]'"
        ) from error
    return driver


def check(result: tuple[Any, ...]) -> Any:
    """Return what a driver call gave, once its return code is success.

    Raises:
        DeviceMemoryError: the memory is full.
        DeviceLostError: the context is unusable.
        RunError: anything else.
    """
    code = result[0]
    if code != 0:
        raise _error(code)
    return result[1] if len(result) == 2 else None


def _error(code: Any) -> RunError:
    name = getattr(code, "name", str(code))
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return DeviceMemoryError(f"the GPU's memory is full ({name}); close other models, or use smaller batches")
    if name in _LOST:
        return DeviceLostError(
            f"the GPU's context is unusable ({name}); close its models, drop arrays on it and load again, and if that fails "
            "start the process again"
        )
    return RunError(f"CUDA failed: {name}")


class Context:
    """The CUDA context that a model lives in: the thread's current one, else the device's primary one.

    A primary context is retained, also where it is the current one: whoever made it current may let it go first. It goes when the
    last model has been closed and the last array in its memory is gone; after an error that made it unusable it is then reset, so
    that the next model finds a sound one.

    Args:
        device: CUDA's number of the GPU, or None: the one of the thread's current context, else 0.

    Raises:
        NoGpuError: there is no driver, or no such device.
        BackendError: cuda-bindings is missing, or the current context is another device's and not a primary one.
    """

    def __init__(self, device: int | None = None) -> None:
        find_gpu(device or 0)  # a machine without a driver says so in its own words
        self._cuda = cuda = _driver()
        check(cuda.cuInit(0))
        self._context, here = _current(cuda)
        self.borrowed = self._context is not None
        """Whether somebody else made the context, and keeps it."""
        if self.borrowed and device not in (None, here):
            raise BackendError(
                f"device {device} was asked for, but this thread's CUDA context is on device {here}; make a context "
                "on the device that you want current first, or leave device out"
            )
        self.device: int = here if device is None else device
        if not self.borrowed:
            self._context = self.hold()
        self._key = int(self._context)
        self._threads: set[int] = set()  # that it was made current in for good
        self._closed = False
        self.gpu = find_gpu(self.device)

    def enter(self) -> bool:
        """Make the context current in this thread: for good where the thread has none, else until :meth:`leave`.

        Returns:
            what :meth:`leave` needs to know.
        """
        cuda = self._cuda
        current = int(check(cuda.cuCtxGetCurrent()))
        if current == self._key:
            return False
        if current == 0:
            check(cuda.cuCtxSetCurrent(self._context))
            self._threads.add(threading.get_ident())
            return False
        check(cuda.cuCtxPushCurrent(self._context))
        return True

    def leave(self, pushed: bool) -> None:
        """Undo :meth:`enter`."""
        if pushed:
            check(self._cuda.cuCtxPopCurrent())

    @contextmanager
    def active(self) -> Iterator[None]:
        """Have the context current inside the block, and what was current before after it."""
        check(self._cuda.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            check(self._cuda.cuCtxPopCurrent())

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes of the GPU's memory."""
        with self.active():
            code, free, total = self._cuda.cuMemGetInfo()
        check((code,))
        return int(free), int(total)

    def hold(self) -> Any:
        """Keep the primary context until :meth:`drop`, as an array does that outlives its model."""
        if self.borrowed:
            return None
        with _lock:
            _holds[self.device] += 1
            try:
                return check(self._cuda.cuDevicePrimaryCtxRetain(self.device))
            except BaseException:
                _holds[self.device] -= 1
                raise

    def drop(self) -> None:
        """Undo :meth:`hold`."""
        if self.borrowed:
            return
        with _lock, suppress(RunError):
            _holds[self.device] -= 1
            check(self._cuda.cuDevicePrimaryCtxRelease(self.device))
            if not _holds[self.device] and self.device in _lost:  # other models' handles must not meet a new context
                _lost.discard(self.device)
                check(self._cuda.cuDevicePrimaryCtxReset(self.device))

    def close(self, *, lost: bool = False) -> None:
        """Let go of the primary context; a borrowed one is left alone. Closing twice is allowed.

        Args:
            lost: whether an error made the context unusable.
        """
        if self._closed or self.borrowed:
            return
        self._closed = True
        if lost:
            _lost.add(self.device)
        if threading.get_ident() in self._threads:  # a primary context that goes stays current, and unusable
            with suppress(RunError):
                if int(check(self._cuda.cuCtxGetCurrent())) == self._key:
                    check(self._cuda.cuCtxSetCurrent(0))
        self.drop()


_lock = threading.RLock()  # finalizers take it, too
_holds: Counter[int] = Counter()  # by device: how often this process' models and arrays hold its primary context
_lost: set[int] = set()  # devices whose primary context is unusable


def _current(cuda: Any) -> tuple[Any, int]:
    """Return the thread's current context where it lives and is not a primary one, else None; and its device, else 0."""
    current = check(cuda.cuCtxGetCurrent())
    if int(current) == 0:
        return None, 0
    code, found = cuda.cuCtxGetDevice()
    if getattr(code, "name", "") in ("CUDA_ERROR_CONTEXT_IS_DESTROYED", "CUDA_ERROR_INVALID_CONTEXT"):
        return None, 0  # somebody has let it go; it stays current all the same
    device = int(check((code, found)))
    code, _, active = cuda.cuDevicePrimaryCtxGetState(device)
    check((code,))
    if not active:  # asked first, for retaining would make one
        return current, device
    primary = check(cuda.cuDevicePrimaryCtxRetain(device))
    check(cuda.cuDevicePrimaryCtxRelease(device))  # somebody else keeps it
    return (None if int(primary) == int(current) else current), device


class Stream:
    """A CUDA stream that does not wait for the legacy default stream."""

    def __init__(self) -> None:
        self._cuda = cuda = _driver()
        self._stream = check(cuda.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
        self.handle = int(self._stream)

    def close(self) -> None:
        """Destroy it once its work is done."""
        if self.handle:
            self.handle = 0
            check(self._cuda.cuStreamDestroy(self._stream))


def synchronize(stream: int) -> None:
    """Wait for a stream's work."""
    code = _driver().cuStreamSynchronize(stream)[0]
    if code != 0:
        raise _error(code)


class Event:
    """A CUDA event.

    Args:
        timing: whether it measures time; events that do not are cheaper.
    """

    def __init__(self, *, timing: bool = False) -> None:
        self._cuda = cuda = _driver()
        flags = cuda.CUevent_flags
        self._event = check(cuda.cuEventCreate(flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING))

    def record(self, stream: int) -> None:
        """Mark the point that a stream's work has come to."""
        check(self._cuda.cuEventRecord(self._event, stream))

    def make_wait(self, stream: int) -> None:
        """Let a stream's further work wait for the mark."""
        check(self._cuda.cuStreamWaitEvent(stream, self._event, 0))

    def synchronize(self) -> None:
        """Wait for the mark."""
        check(self._cuda.cuEventSynchronize(self._event))

    def since(self, earlier: Event) -> float:
        """Return the milliseconds of GPU time between two marks; both have ``timing``."""
        return float(check(self._cuda.cuEventElapsedTime(earlier._event, self._event)))

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
        self._cuda = cuda = _driver()
        self.size = size
        self.address = int(check(cuda.cuMemAlloc(max(size, 1))))

    def close(self) -> None:
        """Free it, once the work that uses it is done. Freeing twice is allowed."""
        if self.address:
            address, self.address = self.address, 0
            check(self._cuda.cuMemFree(address))


class PinnedMemory:
    """Page-locked host memory: the only kind that is copied asynchronously. Freed when its last array is gone.

    Attributes:
        address: on the host.
        size: in bytes.
    """

    def __init__(self, size: int, context: Context) -> None:
        cuda = _driver()
        self.size = max(size, 1)
        flags = int(cuda.CU_MEMHOSTALLOC_PORTABLE)  # pinned for every context of the process
        self.address = int(check(cuda.cuMemHostAlloc(self.size, flags)))
        context.hold()  # with its context the memory would go, and whoever reads the array crash
        # a class of our own, for finalizers need weak references
        kind: Any = type("Block", (ctypes.c_uint8 * self.size,), {})
        block = kind.from_address(self.address)
        weakref.finalize(block, _free_pinned, context, self.address).atexit = False
        self._block = block
        self._bytes: Array = np.frombuffer(block, np.uint8)

    def when_freed(self, call: Callable[[int], None], argument: int) -> None:
        """Call a function when the last array is gone."""
        weakref.finalize(self._block, call, argument).atexit = False

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0) -> Array:
        """Return an array over the memory, which it keeps alive."""
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        found: Array = self._bytes[offset : offset + size].view(dtype).reshape(shape)
        return found


def _free_pinned(context: Context, address: int) -> None:
    with suppress(RunError), context.active():
        check(_driver().cuMemFreeHost(address))
    context.drop()


def copy_to_device(device: int, host: int, size: int, stream: int) -> None:
    """Copy bytes asynchronously; the host's memory is pinned."""
    code = _driver().cuMemcpyHtoDAsync(device, host, size, stream)[0]
    if code != 0:
        raise _error(code)


def copy_to_host(host: int, device: int, size: int, stream: int) -> None:
    """Copy bytes asynchronously; the host's memory is pinned."""
    code = _driver().cuMemcpyDtoHAsync(host, device, size, stream)[0]
    if code != 0:
        raise _error(code)


def copy_on_device(target: int, source: int, size: int, stream: int) -> None:
    """Copy bytes on the device asynchronously."""
    check(_driver().cuMemcpyDtoDAsync(target, source, size, stream))


class Graph:
    """A stream's work, recorded once and launched as a whole.

    Args:
        stream: to record on.
        work: enqueues the work on the stream; it must not wait or allocate.

    Raises:
        RunError: the work cannot be captured; nothing of it has run, and the stream can be used.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._cuda = cuda = _driver()
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
            raise _error(code)

    def close(self) -> None:
        """Destroy it, once its launches are done."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            check(self._cuda.cuGraphExecDestroy(graph))
