"""A CUDA driver without a GPU, for tests: as strict as the real one, and as late as a real one may be.

It stands in for ``cuda.bindings.driver``. Device memory is host memory with a register of what is allocated. Streams run nothing
until somebody waits for them, so that a forgotten wait shows as wrong numbers. What a real driver leaves undefined is a
violation here, which fails the test.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from tests.fakes.contexts import SimulatedContexts
from tests.fakes.objects import (
    Code,
    Failure,
    Handle,
    SimBlock,
    SimCapture,
    SimContext,
    SimEvent,
    SimGraph,
    SimStream,
    call,
    tell,
)

__all__ = ["ALIGNMENT", "Code", "SimCapture", "SimStream", "SimulatedCuda"]
ALIGNMENT = 256


class SimulatedCuda(SimulatedContexts):
    """One process' CUDA driver: memory, streams, events and graphs."""

    # memory

    @call()
    def cuMemGetInfo(self) -> tuple[int, int]:
        return self.limit - self._used(), self.limit

    @call(unsafe=True)
    def cuMemAlloc(self, size: int) -> Handle:
        return Handle(self.allocate(size))

    def allocate(self, size: int) -> int:
        """Allocate in the current context."""
        if size < 1:
            raise Failure("INVALID_VALUE")
        if self._used() + size > self.limit:
            raise Failure("OUT_OF_MEMORY")
        return self._block(self.blocks, size)

    @call(unsafe=True)
    def cuMemFree(self, address: Any) -> None:
        self._drain_all(self.require_context())
        self._remove(self.blocks, int(address))

    @call(unsafe=True)
    def cuMemHostAlloc(self, size: int, flags: int) -> int:
        assert flags == self.CU_MEMHOSTALLOC_PORTABLE
        return self._block(self.pinned, size)

    @call(unsafe=True)
    def cuMemFreeHost(self, address: int) -> None:
        self._drain_all(self.require_context())
        self._remove(self.pinned, address)

    @call()
    def cuMemcpyHtoDAsync(self, device: Any, host: int, size: int, stream: Any) -> None:
        self._copy(int(device), host, size, stream, host)

    @call()
    def cuMemcpyDtoHAsync(self, host: int, device: Any, size: int, stream: Any) -> None:
        self._copy(host, int(device), size, stream, host)

    @call()
    def cuMemcpyDtoDAsync(self, target: Any, source: Any, size: int, stream: Any) -> None:
        self._copy(int(target), int(source), size, stream, None)

    def _copy(self, target: int, source: int, size: int, stream: Any, host: int | None) -> None:
        if host is not None and not self._holds(self.pinned, host, size):
            self.violations.append("an asynchronous copy with memory that is not pinned")

        def work() -> None:
            for address in (target, source):
                self.require_memory(address, size, host=address == host)
            ctypes.memmove(target, source, size)

        self.enqueue(stream, work)

    def require_memory(self, address: int, size: int, *, host: bool = False) -> None:
        """Check at the time of running that a range is allocated; else the context is lost."""
        if not self._holds(self.pinned if host else self.blocks, address, size):
            raise Failure("ILLEGAL_ADDRESS")

    @call()
    def cuPointerGetAttribute(self, attribute: Any, address: Any) -> int:
        kinds = self.CUpointer_attribute
        for register, kind in ((self.blocks, "DEVICE"), (self.pinned, "HOST")):
            for block in register.values():
                if block.address <= int(address) < block.address + block.size:
                    return {
                        kinds.CU_POINTER_ATTRIBUTE_MEMORY_TYPE: int(
                            getattr(self.CUmemorytype, f"CU_MEMORYTYPE_{kind}")
                        ),
                        kinds.CU_POINTER_ATTRIBUTE_IS_MANAGED: 0,
                        kinds.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: block.context.device,
                    }[attribute]
        raise Failure("INVALID_VALUE")

    # streams and events

    @call(unsafe=True)
    def cuStreamCreate(self, flags: Any) -> Handle:
        return Handle(self.new_stream(blocking=int(flags) == 0))

    @call()
    def cuStreamDestroy(self, stream: Any) -> None:
        self.drain(self._stream(stream))
        del self.streams[int(stream)]

    @call()
    def cuStreamSynchronize(self, stream: Any) -> None:
        found = self._stream(stream)
        if found.capture:
            found.capture.valid = False
            raise Failure("STREAM_CAPTURE_UNSUPPORTED")
        self._not_while_capturing()
        self.waits += 1
        self.drain(found)

    @call(unsafe=True)
    def cuEventCreate(self, flags: Any) -> Handle:
        handle = self._handle()
        self.events[handle] = SimEvent(self.require_context())
        return Handle(handle)

    @call()
    def cuEventDestroy(self, event: Any) -> None:
        self._event(event)
        del self.events[int(event)]

    @call()
    def cuEventRecord(self, event: Any, stream: Any) -> None:
        found, on = self._event(event), self._stream(stream)
        if found.context is not on.context:
            raise Failure("INVALID_HANDLE")
        if on.capture:
            raise Failure("STREAM_CAPTURE_UNSUPPORTED")  # the runtime never does
        self._order(on)
        found.mark = (on, on.enqueued)

    @call()
    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        mark = self._event(event).mark
        if mark is not None:
            self.enqueue(stream, lambda: self.drain(*mark))

    @call(unsafe=True)
    def cuEventSynchronize(self, event: Any) -> None:
        self.waits += 1
        if (mark := self._event(event).mark) is not None:
            self.drain(*mark)

    @call()
    def cuEventElapsedTime(self, start: Any, end: Any) -> float:
        if self.bindings >= 13 and self.version < 12080:  # it asks for CUDA 12.8's
            raise RuntimeError("function cuEventElapsedTime_v2 is not found")
        return self.elapsed(start, end)

    def elapsed(self, start: Any, end: Any) -> float:
        """Return the time between two events, as any version of the function does."""
        return float(self._event(end).mark is not None and self._event(start).mark is not None)

    def enqueue(self, stream: Any, work: Callable[[], None]) -> None:
        """Put work on a stream, or into the graph that is captured on it."""
        on = self._stream(stream)
        if on.capture is not None:
            if not on.capture.valid:
                raise Failure("STREAM_CAPTURE_INVALIDATED")
            on.capture.work.append(work)
            return
        self._order(on)
        tell(work)
        self._append(on, work)

    def drain(self, stream: SimStream, until: int | None = None) -> None:
        """Run a stream's work up to a position."""
        until = stream.enqueued if until is None else until
        while stream.done < until and stream.work:
            work = stream.work.popleft()
            stream.done += 1
            try:
                if not stream.context.lost:
                    work()
            except Failure as failure:
                stream.context.lost = failure.code.name.removeprefix("CUDA_ERROR_")
        if stream.context.lost:
            raise Failure(stream.context.lost)

    def _append(self, stream: SimStream, work: Callable[[], None]) -> None:
        stream.work.append(work)
        stream.enqueued += 1

    def _order(self, on: SimStream) -> None:
        """The legacy default stream and the blocking ones wait for one another."""
        legacy = self._legacy(on.context)
        others = [s for s in self.streams.values() if s.blocking and s.context is on.context] if on is legacy else []
        if on.blocking and on is not legacy:
            others = [legacy]
        for other in others:
            if other.done < other.enqueued:
                self._append(on, lambda other=other, until=other.enqueued: self.drain(other, until))  # type: ignore[misc]

    def _drain_all(self, context: SimContext) -> None:
        for stream in [*self.streams.values(), self._legacy(context)]:
            if stream.context is context:
                self.drain(stream)

    # capture

    def capture_of(self, stream: Any) -> SimCapture | None:
        return self._stream(stream).capture

    @call()
    def cuStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        found = self._stream(stream)
        if found is self._legacy(found.context):
            raise Failure("STREAM_CAPTURE_UNSUPPORTED")
        if found.capture:
            raise Failure("ILLEGAL_STATE")
        found.capture = SimCapture(threading.get_ident())

    @call()
    def cuStreamEndCapture(self, stream: Any) -> Handle:
        found = self._stream(stream)
        if found.capture is None:
            raise Failure("ILLEGAL_STATE")
        if found.capture.thread != threading.get_ident():
            raise Failure("STREAM_CAPTURE_WRONG_THREAD")
        capture, found.capture = found.capture, None
        if not capture.valid:
            raise Failure("STREAM_CAPTURE_INVALIDATED")
        handle = self._handle()
        self.graphs[handle] = SimGraph(found.context, capture.work)
        return Handle(handle)

    @call(unsafe=True)
    def cuGraphInstantiate(self, graph: Any, flags: int) -> Handle:
        handle = self._handle()
        self.executables[handle] = SimGraph(self.require_context(), list(self.graphs[int(graph)].work))
        return Handle(handle)

    @call()
    def cuGraphDestroy(self, graph: Any) -> None:
        if self.graphs.pop(int(graph), None) is None:
            raise Failure("INVALID_VALUE")

    @call()
    def cuGraphLaunch(self, graph: Any, stream: Any) -> None:
        found = self.executables.get(int(graph))
        if found is None:
            self.violations.append("a destroyed graph was launched")
            raise Failure("INVALID_HANDLE")

        def queued() -> None:
            found.in_flight += 1
            for item in found.work:
                tell(item)

        def work() -> None:
            for item in found.work:
                item()
            found.in_flight -= 1

        work.queued = queued  # type: ignore[attr-defined]
        self.enqueue(stream, work)

    @call()
    def cuGraphExecDestroy(self, graph: Any) -> None:
        found = self.executables.pop(int(graph), None)
        if found is None:
            raise Failure("INVALID_VALUE")
        if found.in_flight:
            self.violations.append("a graph was destroyed in flight")

    # inside

    def _used(self) -> int:
        return sum(block.size for block in self.blocks.values())

    def _block(self, register: dict[int, SimBlock], size: int) -> int:
        buffer = np.full(size + ALIGNMENT, 0xAB, np.uint8)  # what was there before
        address = -(-buffer.ctypes.data // ALIGNMENT) * ALIGNMENT
        register[address] = SimBlock(self.require_context(), address, size, buffer)
        return address

    def _remove(self, register: dict[int, SimBlock], address: int) -> None:
        block = register.pop(address, None)
        if block is None:
            self.violations.append("memory was freed twice, or never allocated")
            raise Failure("INVALID_VALUE")
        block.buffer[...] = 0xCD

    def free(self, address: int) -> None:
        """Free what a library allocated, as its destructors do."""
        with self.lock:
            block = self.blocks.get(address)
            if block is None or self.current() is not block.context:
                self.violations.append("a library's object was destroyed outside its CUDA context")
                return
            with suppress(Failure):
                self._not_while_capturing()
                self._drain_all(block.context)
            del self.blocks[address]

    @staticmethod
    def _holds(register: dict[int, SimBlock], address: int, size: int) -> bool:
        return any(b.address <= address and address + size <= b.address + b.size for b in register.values())
