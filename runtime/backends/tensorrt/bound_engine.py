"""An engine bound to memory of its own, for measurements: each of its steps can be enqueued by itself."""

from __future__ import annotations

import traceback
from contextlib import suppress
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

from .engine import LoadedEngine
from .memory import Buffers, Shape

_Resource = TypeVar("_Resource")


class BoundEngine:
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
            traceback.clear_frames(error.__traceback__)  # they hold the execution context, which must be freed first
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
