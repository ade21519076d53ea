"""Several engines running on the same images at once. For measurements."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.cuda.driver import CudaGraph, Event, synchronize
from mtl_deploy.runtime.errors import RunError

from .backend import TensorRTBackend
from .bound_engine import BoundEngine
from .memory import Shape


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
        self._instances: list[BoundEngine] = []
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
                    self._instances.append(BoundEngine(backend.loaded, batch, shared))
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
