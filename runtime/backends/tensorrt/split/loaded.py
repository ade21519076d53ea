"""The engines of a network in parts, run one after another as if they were one: what one gives lies where the next ones read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.backends.tensorrt.engine import LoadedEngine
from mtl_deploy.runtime.backends.tensorrt.library import Library
from mtl_deploy.runtime.backends.tensorrt.log import Messages
from mtl_deploy.runtime.backends.tensorrt.memory import Binding, Shape
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import DeviceMemory
from mtl_deploy.runtime.errors import RunError


@dataclass(frozen=True)
class LoadedPart:
    """One engine of a network in parts.

    Attributes:
        loaded: the engine; its ``input`` is the first of the part's inputs.
        tasks: that need it.
        inputs: names of what it reads.
        outputs: names of tasks, and of what later parts read.
    """

    loaded: LoadedEngine
    tasks: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class PartExecutions:
    """Execution contexts of parts that work in the same activation memory, one after another on one stream.

    A part's context is made when it is first bound.
    """

    def __init__(self, activations: DeviceMemory) -> None:
        self._activations = activations
        self._made: dict[int, Any] = {}
        self.bound: tuple[int, ...] = ()
        """The parts that the next enqueue runs, by their numbers."""

    def of(self, number: int, part: LoadedPart) -> Any:
        """Return the context of a part."""
        if number not in self._made:
            self._made[number] = part.loaded.make_execution(self._activations)
        return self._made[number]

    def is_stream_capturable(self, stream: int) -> bool:
        """Return whether all parts say that the stream can be captured; only TensorRT-RTX is asked."""
        asked = (getattr(self._made[number], "is_stream_capturable", None) for number in self.bound)
        return all(one is None or one(stream) for one in asked)


@dataclass(frozen=True)
class LoadedParts:
    """Deserialized parts and what all their lanes need. It stands where one loaded engine does.

    Attributes:
        library: the one that runs them.
        context: the CUDA context that they live in.
        input: the image's tensor.
        outputs: the tasks' tensors.
        inner: the tensors between the parts.
        parts: each after those whose outputs it reads.
        messages: what the library has said.
        graphs: number of CUDA graphs that a lane keeps; 0: none.
    """

    library: Library
    context: Context
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    inner: tuple[TensorSpec, ...]
    parts: tuple[LoadedPart, ...]
    messages: Messages
    graphs: int
    parted: bool = field(default=True, init=False)

    @property
    def activation_bytes(self) -> int:
        """The activation memory of the part that needs most: they run one after another."""
        return max(part.loaded.activation_bytes for part in self.parts)

    def make_execution(self, activations: DeviceMemory) -> PartExecutions:
        """Return execution contexts that work in the given memory; they are made when they are bound."""
        return PartExecutions(activations)

    def bind(self, execution: PartExecutions, binding: Binding) -> None:
        """Tell the parts that the wanted outputs need their shapes and addresses.

        Raises:
            RunError: one refuses them; :class:`DeviceMemoryError`: there is no memory for a context.
        """
        addresses = dict(zip((spec.name for spec in self.inner), binding.inner, strict=True))
        addresses |= zip((spec.name for spec in self.outputs), binding.outputs, strict=True)
        addresses[self.input.name] = binding.device_input
        wanted = {spec.name for spec, one in zip(self.outputs, binding.wanted, strict=True) if one}
        numbers = tuple(number for number, part in enumerate(self.parts) if not wanted.isdisjoint(part.tasks))
        self._shapes(execution, binding.shape, numbers)
        self.messages.clear()
        for number in numbers:
            part = self.parts[number]
            one = execution.of(number, part)
            if not all(one.set_tensor_address(name, addresses[name]) for name in (*part.inputs, *part.outputs)):
                raise self.failure("binding")
        execution.bound = numbers

    def enqueue(self, execution: PartExecutions, stream: int) -> None:
        """Enqueue the kernels of the bound parts on a stream, in order.

        Raises:
            RunError: the library failed.
        """
        for number in execution.bound:
            part = self.parts[number]
            part.loaded.enqueue(execution.of(number, part), stream)

    def output_shapes(self, execution: PartExecutions, shape: Shape) -> tuple[Shape, ...]:
        """Return the shapes of the tasks, then those of the tensors between the parts, for a shape of the input.

        Raises:
            RunError: an engine refuses the shape.
        """
        shapes = self._shapes(execution, shape, range(len(self.parts)))
        return tuple(shapes[spec.name] for spec in (*self.outputs, *self.inner))

    def _shapes(self, execution: PartExecutions, shape: Shape, numbers: Sequence[int]) -> dict[str, Shape]:
        """Set the shapes of the inputs, and return those of all tensors of these parts."""
        self.messages.clear()
        shapes = {self.input.name: shape}
        for number in numbers:
            part = self.parts[number]
            one = execution.of(number, part)
            if not all(one.set_input_shape(name, shapes[name]) for name in part.inputs):
                raise self.failure("binding")
            for name in part.outputs:
                shapes[name] = tuple(int(size) for size in one.get_tensor_shape(name))
                if any(size < 0 for size in shapes[name]):
                    raise self.failure("shapes of the outputs")
        return shapes

    def failure(self, what: str) -> RunError:
        """Return the error for a failed call of the library, with the reason that it gave."""
        return self.parts[0].loaded.failure(what)
