"""The memory of a lane: pinned staging and device buffers for one batch, laid out once per size of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtl_deploy.runtime.arrays import Array, TensorSpec
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import ALIGNMENT, DeviceMemory, PinnedMemory

Shape = tuple[int, ...]
_KEPT = 64  # layouts; where heights and widths are free, there may be many


class Binding(NamedTuple):
    """What one enqueue reads and writes: the key of a recorded graph.

    Attributes:
        shape: of the input.
        host_input: pinned address to copy from; 0 where the input is on the device.
        device_input: the input tensor's address.
        outputs: the output tensors' addresses.
        to_host: whether the block of outputs is copied to pinned memory.
    """

    shape: Shape
    host_input: int
    device_input: int
    outputs: tuple[int, ...]
    to_host: bool


@dataclass(frozen=True)
class BufferLayout:
    """Where an input of one shape, and its outputs, lie.

    Attributes:
        binding: from pinned memory to pinned memory.
        staging: pinned array for the input.
        results: pinned arrays of the outputs, by name.
        input_bytes: of the input.
        output_bytes: of the block of outputs, each aligned.
    """

    binding: Binding
    staging: Array
    results: Mapping[str, Array]
    input_bytes: int
    output_bytes: int


class Buffers:
    """Buffers that grow to the largest batch seen. The outputs lie in one block, so that one copy moves all of them.

    Shapes are the input's. A number stands for the shape of that many images where no other size is free.

    Args:
        image: the input's tensor.
        outputs: the outputs' tensors.
        context: current whenever a method is called.
        shapes: returns the outputs' shapes for a shape of the input; None: they follow from the batch.
    """

    def __init__(
        self,
        image: TensorSpec,
        outputs: Sequence[TensorSpec],
        context: Context,
        shapes: Callable[[Shape], Sequence[Shape]] | None = None,
    ) -> None:
        self._image, self._outputs, self._context = image, tuple(outputs), context
        self._shapes = shapes or (lambda shape: [(shape[0], *sizes_of(spec)) for spec in self._outputs])
        self._device: list[DeviceMemory] = []  # input, outputs
        self._pinned: list[PinnedMemory] = []  # likewise
        self._capacity = (0, 0)  # bytes of them
        self._plans: dict[Shape, _Plan] = {}
        self._layouts: dict[Shape, BufferLayout] = {}

    def fits(self, shape: Shape | int) -> bool:
        """Return whether an input of a shape needs no new memory."""
        plan = self._plan(shape)
        return plan.input_bytes <= self._capacity[0] and plan.offsets[-1] <= self._capacity[1]

    def grow(self, shape: Shape | int) -> None:
        """Make room for a shape. All addresses change, so the work that uses the old ones must be done.

        Raises:
            DeviceMemoryError: there is not enough memory; the buffers are then empty.
        """
        plan = self._plan(shape)
        sizes = max(self._capacity[0], plan.input_bytes), max(self._capacity[1], plan.offsets[-1])
        self.close()
        try:
            for size in sizes:
                self._device.append(DeviceMemory(size))
            self._pinned = [PinnedMemory(size, self._context) for size in sizes]
        except BaseException:
            self.close()
            raise
        self._capacity = sizes

    def layout(self, shape: Shape | int) -> BufferLayout:
        """Return the layout for an input of a shape that fits."""
        plan = self._plan(shape)
        found = self._layouts.get(plan.shape)
        if found is None:
            if len(self._layouts) >= _KEPT:
                del self._layouts[next(iter(self._layouts))]
            found = self._layouts[plan.shape] = self._lay_out(plan)
        return found

    def output_shapes(self, shape: Shape | int) -> dict[str, Shape]:
        """Return the outputs' shapes for a shape of the input, by name."""
        return {spec.name: own for spec, own in zip(self._outputs, self._plan(shape).outputs, strict=True)}

    def _plan(self, shape: Shape | int) -> _Plan:
        if isinstance(shape, int):
            shape = (shape, *sizes_of(self._image))
        found = self._plans.get(shape)
        if found is None:
            if len(self._plans) >= _KEPT:
                del self._plans[next(iter(self._plans))]
            found = self._plans[shape] = self._make_plan(shape)
        return found

    def _make_plan(self, shape: Shape) -> _Plan:
        outputs, offsets = tuple(self._shapes(shape)), [0]
        for spec, own in zip(self._outputs, outputs, strict=True):
            size = size_in_bytes(spec, own)
            offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
        return _Plan(shape, outputs, size_in_bytes(self._image, shape), tuple(offsets))

    def _lay_out(self, plan: _Plan) -> BufferLayout:
        (input_memory, output_memory), (staging, results) = self._device, self._pinned
        addresses = tuple(output_memory.address + offset for offset in plan.offsets[:-1])
        return BufferLayout(
            binding=Binding(plan.shape, staging.address, input_memory.address, addresses, to_host=True),
            staging=staging.array(self._image.dtype, plan.shape),
            results={
                spec.name: results.array(spec.dtype, shape, offset)
                for spec, shape, offset in zip(self._outputs, plan.outputs, plan.offsets, strict=False)
            },
            input_bytes=plan.input_bytes,
            output_bytes=plan.offsets[-1],
        )

    def result_address(self) -> int:
        """Return the pinned address of the block of outputs."""
        return self._pinned[1].address

    def close(self) -> None:
        """Free the memory; pinned memory is freed with the last array over it."""
        device, self._device, self._pinned = self._device, [], []
        self._capacity = (0, 0)
        self._layouts.clear()
        for memory in device:
            memory.close()


class _Plan(NamedTuple):
    """What an input of a shape needs.

    Attributes:
        shape: of the input.
        outputs: the outputs' shapes.
        input_bytes: of the input.
        offsets: of the outputs in their block, and the block's end, in bytes.
    """

    shape: Shape
    outputs: tuple[Shape, ...]
    input_bytes: int
    offsets: tuple[int, ...]


def sizes_of(spec: TensorSpec) -> Shape:
    """Return the sizes of a tensor's dimensions after the batch; 1 where one is free."""
    return tuple(int(size or 1) for size in spec.shape[1:])


def is_free(spec: TensorSpec) -> bool:
    """Return whether a tensor has a free size besides the batch."""
    return None in spec.shape[1:]


def size_in_bytes(spec: TensorSpec, shape: Shape) -> int:
    """Return the bytes of a tensor of a shape."""
    return spec.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
