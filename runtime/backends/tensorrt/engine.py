"""A deserialized engine: what all its execution contexts have in common, and how they are made and bound."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import DeviceMemory
from mtl_deploy.runtime.errors import DeviceMemoryError, RunError

from .library import Library
from .log import Messages
from .memory import Binding, Shape, is_free, sizes_of


@dataclass(frozen=True)
class LoadedEngine:
    """A deserialized engine and what all its lanes need.

    Attributes:
        library: the one that runs it.
        engine: the library's object.
        context: the CUDA context that it lives in.
        input: the image's tensor.
        outputs: the tasks' tensors.
        messages: what the library has said.
        graphs: number of CUDA graphs that a lane keeps; 0: none.
        runtime_config: TensorRT-RTX's; None for TensorRT.
        making: held while an execution context is made.
    """

    library: Library
    engine: Any
    context: Context
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    messages: Messages
    graphs: int
    runtime_config: Any = None
    making: threading.Lock = field(default_factory=threading.Lock)

    parted = False  # one engine computes all outputs, whichever are wanted
    inner: tuple[TensorSpec, ...] = field(default=(), init=False)

    @property
    def activation_bytes(self) -> int:
        """The activation memory that an execution context needs."""
        return int(self.library.device_memory_size(self.engine))

    def make_execution(self, activations: DeviceMemory) -> Any:
        """Return an execution context that works in the given memory. The CUDA context is current.

        Raises:
            DeviceMemoryError: the GPU's memory is full.
            RunError: the library returns none.
        """
        with self.making:
            self.messages.clear()
            execution = self.library.create_context(self.engine, self.runtime_config)
            if execution is None:
                raise self.failure("no execution context")
        self.library.set_device_memory(execution, activations.address, activations.size)
        return execution

    def bind(self, execution: Any, binding: Binding) -> None:
        """Tell an execution context its shapes and addresses.

        Raises:
            RunError: it refuses them.
        """
        self.messages.clear()
        ok = execution.set_input_shape(self.input.name, binding.shape)
        ok = execution.set_tensor_address(self.input.name, binding.device_input) and ok
        for spec, address in zip(self.outputs, binding.outputs, strict=True):
            ok = execution.set_tensor_address(spec.name, address) and ok
        if not ok:
            raise self.failure("binding")

    def enqueue(self, execution: Any, stream: int) -> None:
        """Enqueue the engine's kernels on a stream.

        Raises:
            RunError: the library failed.
        """
        self.messages.clear()
        done = execution.execute_async_v3(stream)
        del execution  # whoever keeps the error keeps this frame, and a context must be freed before its engine
        if not done:
            raise self.failure("enqueue")

    def output_shapes(self, execution: Any, shape: Shape) -> tuple[Shape, ...]:
        """Return the outputs' shapes for a shape of the input. Where they do not follow from the batch, ask the execution context.

        It then has that input shape, and must be bound again before it is enqueued.

        Raises:
            RunError: the engine refuses the shape.
        """
        if not any(is_free(spec) for spec in self.outputs):
            return tuple((shape[0], *sizes_of(spec)) for spec in self.outputs)
        self.messages.clear()
        if not execution.set_input_shape(self.input.name, shape):
            raise self.failure("binding")
        shapes = tuple(tuple(int(size) for size in execution.get_tensor_shape(spec.name)) for spec in self.outputs)
        if any(size < 0 for own in shapes for size in own):
            raise self.failure("shapes of the outputs")
        return shapes

    def failure(self, what: str) -> RunError:
        """Return the error for a failed call of the library, with the reason that it gave."""
        text = f"{self.library.title} failed ({what}): {self.messages.reason()}"
        if self.messages.out_of_memory:
            return DeviceMemoryError(f"{text}; use smaller batches or fewer models")
        return RunError(text)
