"""The CUDA context that a model lives in: whichever the caller has made current, else the device's primary one.

So the runtime shares the context of PyTorch and CuPy (the primary one), or pycuda's own, and never makes another.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mtl_deploy.runtime.errors import BackendError, RunError

from .calls import check, driver
from .gpu import find_gpu


class Context:
    """The CUDA context that a model lives in: the thread's current one, else the device's primary one.

    A primary context is retained, even where it is the current one: whoever made it current may release it first. It is released
    when the last model is closed and the last array in its memory is deleted. After an error that made it unusable it is then
    reset: an attempt to give the next model a working one, which CUDA does not promise (its process "must be terminated and
    relaunched").

    Args:
        device: CUDA's number of the GPU, or None: the one of the thread's current context, else 0.

    Raises:
        NoGpuError: there is no driver, or no such device.
        BackendError: cuda-bindings is missing, or the current context is on another device and not a primary one.
    """

    def __init__(self, device: int | None = None) -> None:
        find_gpu(device or 0)  # a machine without a driver says so in its own words
        self._cuda = cuda = driver()
        check(cuda.cuInit(0))
        self._context, here = _current(cuda)
        self.borrowed = self._context is not None
        """Whether somebody else made the context, and owns it."""
        if self.borrowed and device not in (None, here):
            raise BackendError(
                f"device={device}, but this thread's CUDA context is on device {here}; make a context "
                "on the device that you want current first, or leave device out"
            )
        self.device: int = here if device is None else device
        if not self.borrowed:
            self._context = self.hold()
        self._key = int(self._context)
        self._threads: set[int] = set()  # in which it was made current for good
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
        """Make the context current inside the block, and restore the previous one after it."""
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
        """Retain the primary context until :meth:`drop`, for an array that outlives its model."""
        if self.borrowed:
            return None
        with _lock:
            _holds[self.device] += 1
            try:
                context = check(self._cuda.cuDevicePrimaryCtxRetain(self.device))
                _primaries[int(context)] = self.device
                return context
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
            if (
                not _holds[self.device] and self.device in _lost
            ):  # other models' handles must not be used in a new context
                _lost.discard(self.device)
                check(self._cuda.cuDevicePrimaryCtxReset(self.device))

    def close(self, *, lost: bool = False) -> None:
        """Release the primary context; a borrowed one is left alone. Closing twice is allowed.

        Args:
            lost: whether an error made the context unusable.
        """
        if self._closed or self.borrowed:
            return
        self._closed = True
        if lost:
            _lost.add(self.device)
        if threading.get_ident() in self._threads:  # a released primary context stays current, but unusable
            with suppress(RunError):
                if int(check(self._cuda.cuCtxGetCurrent())) == self._key:
                    check(self._cuda.cuCtxSetCurrent(0))
        self.drop()


_lock = threading.RLock()  # finalizers take it, too
_holds: Counter[int] = Counter()  # by device: how often models and arrays of this process hold its primary context
_lost: set[int] = set()  # devices whose primary context is unusable
_primaries: dict[int, int] = {}  # devices, by the handle of their primary context


def _current(cuda: Any) -> tuple[Any, int]:
    """Return the thread's current context where it is alive and not a primary one, else None; and its device, else 0."""
    current = check(cuda.cuCtxGetCurrent())
    if int(current) == 0:
        return None, 0
    if int(current) in _primaries:  # even where it has been released since: it stays current in a thread all the same
        return None, _primaries[int(current)]
    code, found = cuda.cuCtxGetDevice()
    if getattr(code, "name", "") in ("CUDA_ERROR_CONTEXT_IS_DESTROYED", "CUDA_ERROR_INVALID_CONTEXT"):
        return None, 0  # somebody has released it
    device = int(check((code, found)))
    code, _, active = cuda.cuDevicePrimaryCtxGetState(device)
    check((code,))
    if not active:  # asked first, as retaining would make one
        return current, device
    primary = check(cuda.cuDevicePrimaryCtxRetain(device))
    check(cuda.cuDevicePrimaryCtxRelease(device))  # somebody else owns it
    return (None if int(primary) == int(current) else current), device
