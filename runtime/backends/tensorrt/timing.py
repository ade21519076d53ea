"""Engines seen from inside: the parts of one call on the GPU's clock, and several engines running at once.

For measurements. Everything here has its own execution contexts, streams and memory, apart from those of the given models.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.cuda.driver import (
    CudaGraph,
    DeviceMemory,
    Event,
    Stream,
    copy_to_device,
    copy_to_host,
    synchronize,
)
from mtl_deploy.runtime.errors import DeviceLostError, RunError

from .backend import TensorRTBackend
from .engine import LoadedEngine
from .memory import Buffers, Shape

_Resource = TypeVar("_Resource")


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


class _Instance:
    """An execution context bound to buffers for one batch size. Its CUDA context is current whenever a method is called.

    Args:
        loaded: the engine.
        shape: of the input, or the number of images where no other size is free.
        device_input: address to read the input at; None: its own.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
        RunError: the library returns no context, or refuses the batch.
    """

    def __init__(self, loaded: LoadedEngine, shape: Shape | int, device_input: int | None = None) -> None:
        self._loaded = loaded
        self._execution: Any = None
        self._closers: list[Any] = []
        self.graph: CudaGraph | None = None
        """The engine's recorded work; None: it is enqueued again each time."""
        try:
            self.stream = self._keep(Stream())
            self.done = self._keep(Event())
            self._activations = self._keep(DeviceMemory(loaded.library.device_memory_size(loaded.engine)))
            self._execution = loaded.make_execution(self._activations)
            self._buffers = self._keep(Buffers(loaded.input, loaded.outputs, loaded.context, self._output_shapes))
            self._buffers.grow(shape)
            self.layout = self._buffers.layout(shape)
            binding = self.layout.binding
            loaded.bind(
                self._execution, binding if device_input is None else binding._replace(device_input=device_input)
            )
            self.execute(self.stream.handle)  # TensorRT requires a plain enqueue before a capture
            synchronize(self.stream.handle)
        except BaseException as error:
            traceback.clear_frames(
                error.__traceback__
            )  # they hold the execution context, which must be freed before CUDA's
            self.close()
            raise

    def _keep(self, resource: _Resource) -> _Resource:
        self._closers.append(resource)
        return resource

    def _output_shapes(self, shape: Shape) -> tuple[Shape, ...]:
        return self._loaded.output_shapes(self._execution, shape)

    def copy_in(self, on: int) -> None:
        """Enqueue the copy of the input to the GPU."""
        binding = self.layout.binding
        copy_to_device(binding.device_input, binding.host_input, self.layout.input_bytes, on)

    def execute(self, on: int) -> None:
        """Enqueue the engine's kernels."""
        self._loaded.enqueue(self._execution, on)

    def launch(self, on: int) -> None:
        """Launch the recorded graph, or enqueue the engine's kernels where there is none."""
        if self.graph is None:
            self.execute(on)
        else:
            self.graph.launch(on)

    def copy_out(self, on: int) -> None:
        """Enqueue the copy of the outputs to the host."""
        copy_to_host(self._buffers.result_address(), self.layout.binding.outputs[0], self.layout.output_bytes, on)

    def require_capturable(self) -> None:
        """Raise where the library says that its work cannot be captured (TensorRT-RTX says so)."""
        capturable = getattr(self._execution, "is_stream_capturable", None)
        if capturable is not None and not capturable(self.stream.handle):
            raise RunError(f"{self._loaded.library.title} says that this engine cannot be captured")

    def record(self) -> str | None:
        """Record the engine alone as a graph, as trtexec does. Return the reason where that fails."""
        handle = self.stream.handle
        try:
            self.require_capturable()
            self.graph = CudaGraph(handle, lambda: self.execute(handle))
        except DeviceLostError:
            raise
        except RunError as error:
            return str(error)
        return None

    def results(self) -> dict[str, Array]:
        """Return copies of the outputs that were copied to the host."""
        return {name: array.copy() for name, array in self.layout.results.items()}

    def close(self) -> None:
        """Free everything, once its work is done. After a lost device, it frees what it can."""
        graph, self.graph = self.graph, None
        self._execution = None
        for name in ("layout", "_loaded"):
            self.__dict__.pop(name, None)
        for resource in [*([] if graph is None else [graph]), *reversed(self._closers)]:
            with suppress(RunError):
                resource.close()
        self._closers = []


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
        self._instance: _Instance | None = None
        self.graphs_off: str | None = None
        """Why there is no CUDA graph; None where there is one."""
        try:
            with self._context.active():
                self._events += [Event(timing=True) for _ in range(4)]
                self._instance = _Instance(loaded, images.shape)
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


class Together:
    """Runs several engines on the same images at once: each on its own stream, or all as one CUDA graph.

    For one thread and one batch size.

    The images are put into pinned memory and copied to the GPU once; every engine reads them there, on a stream of its own, and
    copies its outputs back. The caller waits for all.

    Args:
        backends: loaded engines with different outputs, which must stay open.
        batch: number of images, or the images' shape where other sizes are free too.
        whole: launch all of it, copies too, as one graph that forks and joins. Otherwise each engine is a graph of its own.
        graphs: whether an engine is a graph where not ``whole``; engines that cannot be captured are enqueued kernel by kernel.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
        RunError: the library failed, or the work cannot be captured and ``whole`` asks for it.
    """

    def __init__(
        self, backends: Sequence[TensorRTBackend], batch: Shape | int, *, whole: bool, graphs: bool = True
    ) -> None:
        self._context = backends[0].loaded.context
        self._instances: list[_Instance] = []
        self._closers: list[Any] = []
        self._whole: CudaGraph | None = None
        self.graphs_off: str | None = None
        """Why an engine is enqueued kernel by kernel; None where all are graphs."""
        try:
            with self._context.active():
                self._sent = Event()
                self._closers.append(self._sent)
                for backend in backends:
                    shared = self._instances[0].layout.binding.device_input if self._instances else None
                    self._instances.append(_Instance(backend.loaded, batch, shared))
                    self._closers.append(self._instances[-1])
                if whole:
                    for instance in self._instances:
                        instance.require_capturable()
                    self._whole = CudaGraph(self._instances[0].stream.handle, self._enqueue)
                    self._closers.append(self._whole)
                elif graphs:
                    reasons = [instance.record() for instance in self._instances]
                    self.graphs_off = next((reason for reason in reasons if reason is not None), None)
                else:
                    self.graphs_off = "turned off"
        except BaseException:
            self.close()
            raise

    def __call__(self, images: Array) -> dict[str, Array]:
        """Run all engines, from host memory to host memory; outputs by name.

        Raises:
            RunError: the GPU or a library failed.
        """
        if not self._instances:
            raise RunError("these engines are closed")
        first = self._instances[0]
        with self._context.active():
            on = first.stream.handle
            first.layout.staging[...] = images
            if self._whole is not None:
                self._whole.launch(on)
            else:
                self._enqueue()
            synchronize(on)
        return {name: array for instance in self._instances for name, array in instance.results().items()}

    def _enqueue(self) -> None:
        """Fork from the first engine's stream to the others', and join them there again."""
        first, *others = self._instances
        on = first.stream.handle
        first.copy_in(on)
        self._sent.record(on)
        first.launch(on)
        first.copy_out(on)
        for instance in others:
            stream = instance.stream.handle
            self._sent.make_wait(stream)
            instance.launch(stream)
            instance.copy_out(stream)
            instance.done.record(stream)
        for instance in others:
            instance.done.make_wait(on)

    def close(self) -> None:
        """Free what it holds; closing twice is allowed."""
        self._instances, self._whole = [], None
        with suppress(RunError), self._context.active():
            while self._closers:
                with suppress(RunError):
                    self._closers.pop().close()
