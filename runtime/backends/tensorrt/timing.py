"""The parts of one call of an engine, on the GPU's clock. For measurements."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.cuda.driver import Event
from mtl_deploy.runtime.errors import RunError

from .backend import TensorRTBackend
from .bound_engine import BoundEngine


@dataclass(frozen=True)
class Timing:
    """The parts of one call in milliseconds, as trtexec names them.

    Attributes:
        enqueue: "Enqueue Time": the time that the CPU takes to enqueue the engine, or to launch its CUDA graph; no copies.
        h2d: "H2D Latency": copy of the input, pinned memory to GPU; 0 without transfers.
        compute: "GPU Compute Time": from the end of that copy, or the call's beginning, to the engine's last kernel.
        d2h: "D2H Latency": copy of the outputs, GPU to pinned memory; 0 without transfers.
    """

    enqueue: float
    h2d: float
    compute: float
    d2h: float

    @property
    def latency(self) -> float:
        """The GPU's time: the sum of the three, trtexec's "Latency" ("Host Latency" in its older words)."""
        return self.h2d + self.compute + self.d2h

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            self.enqueue + other.enqueue, self.h2d + other.h2d, self.compute + other.compute, self.d2h + other.d2h
        )


class Timeline:
    """Times the parts of one engine's calls on the GPU's clock. For one thread and one batch.

    Args:
        backend: a loaded engine, which must stay open.
        images: the batch.
        graphs: whether to record a CUDA graph.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
        RunError: the library failed.
    """

    def __init__(self, backend: TensorRTBackend, images: Array, *, graphs: bool = True) -> None:
        loaded = backend.loaded
        self._context = loaded.context
        self._events: list[Event] = []
        self._instance: BoundEngine | None = None
        self.graphs_off: str | None = None
        """Why there is no CUDA graph; None where there is one."""
        try:
            with self._context.active():
                self._events += [Event(timing=True) for _ in range(4)]
                self._instance = BoundEngine(loaded, images.shape)
                self._instance.layout.staging[...] = images
                self._instance.copy_in(self._instance.stream.handle)
                self.graphs_off = self._instance.record() if graphs else "turned off"
        except BaseException:
            self.close()
            raise

    def measure(self, *, transfers: bool, graph: bool) -> Timing:
        """Make one call and wait for it.

        Args:
            transfers: copy the input to the GPU and the outputs back. Without, the engine reads what is already there.
            graph: launch the engine as a CUDA graph.

        Raises:
            RunError: the GPU or the library failed.
        """
        instance = self._instance
        if instance is None:
            raise RunError("this timeline is closed")
        if graph and instance.graph is None:
            raise RunError(f"no CUDA graph: {self.graphs_off}")
        start, sent, computed, end = self._events
        with self._context.active():
            on = instance.stream.handle
            if transfers:
                start.record(on)
                instance.copy_in(on)
            sent.record(on)
            before = time.perf_counter_ns()
            (instance.launch if graph else instance.execute)(on)
            enqueue = (time.perf_counter_ns() - before) / 1e6
            computed.record(on)
            if transfers:
                instance.copy_out(on)
                end.record(on)
            (end if transfers else computed).synchronize()
            h2d, d2h = (sent.since(start), end.since(computed)) if transfers else (0.0, 0.0)
            return Timing(enqueue, h2d, computed.since(sent), d2h)

    def results(self) -> dict[str, Array]:
        """Return the outputs of the last call with transfers."""
        if self._instance is None:
            raise RunError("this timeline is closed")
        return self._instance.results()

    def close(self) -> None:
        """Free what it holds; closing twice is allowed."""
        with suppress(RunError), self._context.active():
            instance, self._instance = self._instance, None
            if instance is not None:
                instance.close()
            while self._events:
                self._events.pop().close()
