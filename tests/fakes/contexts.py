"""The simulated CUDA driver's contexts, and its registers of what has been made in them."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from tests.fakes.objects import Failure, Handle, SimBlock, SimContext, SimEvent, SimGraph, SimStream, call, real


class SimulatedContexts:
    """One process' CUDA driver.

    Attributes:
        calls: how often each function was called.
        violations: what a real driver would have punished with undefined behaviour.
        limit: bytes of device memory.
        version: of CUDA, that the driver supports.
        bindings: major version of cuda-bindings.
        mends: whether a reset gives a sound context after one was lost. CUDA does not promise it.
    """

    CUresult, CUstream_flags, CUevent_flags = real.CUresult, real.CUstream_flags, real.CUevent_flags
    CUstreamCaptureMode, CU_MEMHOSTALLOC_PORTABLE = real.CUstreamCaptureMode, real.CU_MEMHOSTALLOC_PORTABLE
    CUpointer_attribute, CUmemorytype = real.CUpointer_attribute, real.CUmemorytype
    nothing: dict[str, tuple[None, ...]] = dict.fromkeys(("cuMemGetInfo", "cuDevicePrimaryCtxGetState"), (None, None))
    for _name in ("cuStreamEndCapture", "cuMemAlloc", "cuMemHostAlloc", "cuGraphInstantiate", "cuCtxGetDevice"):
        nothing[_name] = (None,)
    for _name in ("cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuEventCreate", "cuEventElapsedTime"):
        nothing[_name] = (None,)
    for _name in ("cuPointerGetAttribute", "cuDeviceGetCount"):
        nothing[_name] = (None,)

    def __init__(self, devices: int = 1, limit: int = 1 << 24) -> None:
        self.lock = threading.RLock()
        self.calls: Counter[str] = Counter()
        self.violations: list[str] = []
        self.limit = limit
        self.devices = devices
        self.version, self.bindings, self.mends = 13000, 13, False
        self._failures: dict[str, dict[int, str | int]] = {}
        self._next = 0x10_0000
        self._local = threading.local()
        self.contexts: dict[int, SimContext] = {}
        self.primaries = [self._context(device, primary=True) for device in range(devices)]
        self.streams: dict[int, SimStream] = {}
        self.events: dict[int, SimEvent] = {}
        self.graphs: dict[int, SimGraph] = {}
        self.executables: dict[int, SimGraph] = {}
        self.blocks: dict[int, SimBlock] = {}
        self.pinned: dict[int, SimBlock] = {}
        self.waits = 0  # by the host, for the device

    # for tests

    def fail(self, name: str, error: str | int, nth: int = 1) -> None:
        """Let the nth call from now of a function fail, once; with a number that cuda-bindings does not know, as it does."""
        self._failures.setdefault(name, {})[self.calls[name] + nth] = error

    def live(self) -> dict[str, int]:
        """Count what has been made and not been freed."""
        return {
            "streams": len(self.streams),
            "events": len(self.events),
            "graphs": len(self.graphs) + len(self.executables),
            "allocations": len(self.blocks),
            "pinned": len(self.pinned),
            "retained": sum(context.retained for context in self.primaries),
        }

    def foreign_context(self, device: int = 0) -> SimContext:
        """Make a context as pycuda does, and make it current."""
        context = self._context(device, primary=False)
        self.stack.append(context)
        return context

    def new_stream(self, *, blocking: bool = False) -> int:
        """Make a stream in the current context, as another library would."""
        with self.lock:
            handle = self._handle()
            self.streams[handle] = SimStream(self.require_context(), blocking)
            return handle

    def lose(self, name: str = "ILLEGAL_ADDRESS", context: SimContext | None = None) -> None:
        """Break a context."""
        (context or self.primaries[0]).lost = name

    def add_device(self) -> None:
        """Put another GPU into the machine."""
        self.devices += 1
        self.primaries.append(self._context(self.devices - 1, primary=True))

    # contexts

    @property
    def stack(self) -> list[SimContext]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        found: list[SimContext] = self._local.stack
        return found

    def current(self) -> SimContext | None:
        return self.stack[-1] if self.stack else None

    def require_context(self) -> SimContext:
        context = self.current()
        if context is None:
            raise Failure("INVALID_CONTEXT")
        if not context.alive:
            raise Failure("CONTEXT_IS_DESTROYED")
        if context.lost:
            raise Failure(context.lost)
        return context

    @call(needs_context=False)
    def cuInit(self, flags: int) -> None:
        assert flags == 0

    @call(needs_context=False)
    def cuDeviceGetCount(self) -> int:
        return self.devices

    @call(needs_context=False)
    def cuCtxGetCurrent(self) -> Handle:
        context = self.current()
        return Handle(0 if context is None else context.handle)

    @call(needs_context=False)
    def cuCtxGetDevice(self) -> Handle:
        context = self.current()
        if context is None:
            raise Failure("INVALID_CONTEXT")
        if not context.alive:
            raise Failure("CONTEXT_IS_DESTROYED")
        return Handle(context.device)

    @call(needs_context=False)
    def cuCtxSetCurrent(self, context: Any) -> None:
        if self.stack:
            self.stack.pop()
        if int(context):
            self.stack.append(self._living(context))

    @call(needs_context=False)
    def cuCtxPushCurrent(self, context: Any) -> None:
        self.stack.append(self._living(context))

    @call(needs_context=False)
    def cuCtxPopCurrent(self) -> Handle:
        if not self.stack:
            raise Failure("INVALID_CONTEXT")
        return Handle(self.stack.pop().handle)

    @call(needs_context=False)
    def cuDevicePrimaryCtxGetState(self, device: Any) -> tuple[int, int]:
        return 0, int(self._primary(device).alive)

    @call(needs_context=False)
    def cuDevicePrimaryCtxRetain(self, device: Any) -> Handle:
        context = self._primary(device)
        if context.lost:
            raise Failure(context.lost)
        context.alive = True
        context.retained += 1
        return Handle(context.handle)

    @call(needs_context=False)
    def cuDevicePrimaryCtxRelease(self, device: Any) -> None:
        context = self._primary(device)
        if not context.retained:
            raise Failure("INVALID_CONTEXT")
        context.retained -= 1
        if not context.retained:
            self.destroy(context)

    @call(needs_context=False)
    def cuDevicePrimaryCtxReset(self, device: Any) -> None:
        context = self._primary(device)
        if context.lost and not self.mends:
            raise Failure(context.lost)
        context.lost = None
        self.destroy(context)

    def destroy(self, context: SimContext) -> None:
        """Destroy a context and all that is in it; it stays on the threads' stacks."""
        for stream in [*self.streams.values(), context.legacy]:
            if stream is not None and stream.context is context and not context.lost:
                self.drain(stream)
        context.alive = False
        context.legacy = None
        for register in (self.streams, self.events, self.graphs, self.executables, self.blocks, self.pinned):
            for handle in [handle for handle, item in register.items() if item.context is context]:  # type: ignore[attr-defined]
                del register[handle]  # type: ignore[attr-defined]

    # inside

    def _inject(self, name: str) -> None:
        failures = self._failures.get(name)
        if failures and (error := failures.pop(self.calls[name], None)) is not None:
            if isinstance(error, int):
                raise ValueError(f"{error} is not a valid CUresult")
            raise Failure(error)

    def _not_while_capturing(self) -> None:
        captures = [stream.capture for stream in self.streams.values() if stream.capture]
        mine = [capture for capture in captures if capture.thread == threading.get_ident()]
        for capture in mine:
            capture.valid = False
        if mine:
            raise Failure("STREAM_CAPTURE_UNSUPPORTED")

    def _handle(self) -> int:
        self._next += 16
        return self._next

    def _context(self, device: int, primary: bool) -> SimContext:
        context = SimContext(self._handle(), device, primary, alive=not primary)
        self.contexts[context.handle] = context
        return context

    def _primary(self, device: Any) -> SimContext:
        if not 0 <= int(device) < self.devices:
            raise Failure("INVALID_DEVICE")
        return self.primaries[int(device)]

    def _living(self, context: Any) -> SimContext:
        found = self.contexts.get(int(context))
        if found is None or not found.alive:
            raise Failure("CONTEXT_IS_DESTROYED" if found else "INVALID_CONTEXT")
        return found

    def _legacy(self, context: SimContext) -> SimStream:
        if context.legacy is None:
            context.legacy = SimStream(context, blocking=True)
        return context.legacy

    def _stream(self, stream: Any) -> SimStream:
        if int(stream) in (0, 1):
            return self._legacy(self.require_context())
        found = self.streams.get(int(stream))
        if found is None or found.context is not self.current():
            raise Failure("INVALID_HANDLE")
        return found

    def _event(self, event: Any) -> SimEvent:
        found = self.events.get(int(event))
        if found is None:
            raise Failure("INVALID_HANDLE")
        return found
