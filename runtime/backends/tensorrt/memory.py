"""The memory of a lane: pinned staging and device buffers for one batch, laid out once per size of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
        inner: addresses of the tensors between the parts of a network; empty for one engine.
        wanted: for a network in parts, which outputs are computed; empty: all.
    """

    shape: Shape
    host_input: int
    device_input: int
    outputs: tuple[int, ...]
    to_host: bool
    inner: tuple[int, ...] = ()
    wanted: tuple[bool, ...] = ()


@dataclass(frozen=True)
class BufferLayout:
    """Where an input of one shape, and its outputs, lie.

    Attributes:
        binding: from pinned memory to pinned memory.
        staging: pinned array for the input.
        results: pinned arrays of the outputs, by name.
        input_bytes: of the input.
        output_bytes: of the block of outputs, each aligned.
        offsets: of the outputs in the block, and its end.
    """

    binding: Binding
    staging: Array
    results: Mapping[str, Array]
    input_bytes: int
    output_bytes: int
    offsets: tuple[int, ...]

    def spans(self, wanted: tuple[bool, ...]) -> list[tuple[int, int]]:
        """Return where the wanted outputs lie in the block, begin and end of each run of them; all if none are named."""
        found: list[tuple[int, int]] = []
        for position, (begin, end) in enumerate(pairwise(self.offsets)):
            if wanted and not wanted[position]:
                continue
            joins = bool(found) and found[-1][1] == begin
            found[-1:] = [(found[-1][0], end)] if joins else [*found[-1:], (begin, end)]
        return found


class Buffers:
    """Buffers that grow to the largest batch seen. The outputs lie in one block, so that one copy moves all of them.

    Shapes are the input's. A number stands for the shape of that many images where no other size is free.

    Args:
        image: the input's tensor.
        outputs: the outputs' tensors.
        context: current whenever a method is called.
        shapes: returns the outputs' shapes for a shape of the input, then those of ``inner``; None: they follow from the batch.
        inner: tensors between parts of a network, which need memory on the device alone.
    """

    def __init__(
        self,
        image: TensorSpec,
        outputs: Sequence[TensorSpec],
        context: Context,
        shapes: Callable[[Shape], Sequence[Shape]] | None = None,
        inner: Sequence[TensorSpec] = (),
    ) -> None:
        self._image, self._outputs, self._context = image, tuple(outputs), context
        self._shapes = shapes or (lambda shape: [(shape[0], *sizes_of(spec)) for spec in self._outputs])
        self._inner = tuple(inner)
        self._device: list[DeviceMemory] = []  # input, outputs, and what is between parts
        self._pinned: list[PinnedMemory] = []  # likewise
        self._capacity = (0, 0, 0)  # bytes of them
        self._plans: dict[Shape, _Plan] = {}
        self._layouts: dict[Shape, BufferLayout] = {}

    def fits(self, shape: Shape | int) -> bool:
        """Return whether an input of a shape needs no new memory."""
        plan = self._plan(shape)
        return all(size <= room for size, room in zip(plan.sizes, self._capacity, strict=True))

    def grow(self, shape: Shape | int) -> None:
        """Make room for a shape. All addresses change, so the work that uses the old ones must be done.

        Raises:
            DeviceMemoryError: there is not enough memory; the buffers are then empty.
        """
        plan = self._plan(shape)
        image, outputs, inner = (max(size, room) for size, room in zip(plan.sizes, self._capacity, strict=True))
        self.close()
        try:
            for size in (image, outputs, *([inner] if inner else [])):
                self._device.append(DeviceMemory(size))
            self._pinned = [PinnedMemory(size, self._context) for size in (image, outputs)]
        except BaseException:
            self.close()
            raise
        self._capacity = (image, outputs, inner)

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
        shapes = tuple(self._shapes(shape))
        outputs, inner = shapes[: len(self._outputs)], shapes[len(self._outputs) :]
        return _Plan(
            shape,
            outputs,
            size_in_bytes(self._image, shape),
            _offsets(self._outputs, outputs),
            _offsets(self._inner, inner),
        )

    def _lay_out(self, plan: _Plan) -> BufferLayout:
        (input_memory, output_memory, *between), (staging, results) = self._device, self._pinned
        addresses = tuple(output_memory.address + offset for offset in plan.offsets[:-1])
        return BufferLayout(
            binding=Binding(
                plan.shape,
                staging.address,
                input_memory.address,
                addresses,
                to_host=True,
                inner=tuple(between[0].address + offset for offset in plan.inner[:-1]) if between else (),
            ),
            staging=staging.array(self._image.dtype, plan.shape),
            results={
                spec.name: results.array(spec.dtype, shape, offset)
                for spec, shape, offset in zip(self._outputs, plan.outputs, plan.offsets, strict=False)
            },
            input_bytes=plan.input_bytes,
            output_bytes=plan.offsets[-1],
            offsets=plan.offsets,
        )

    def result_address(self) -> int:
        """Return the pinned address of the block of outputs."""
        return self._pinned[1].address

    def close(self) -> None:
        """Free the memory; pinned memory is freed with the last array over it."""
        device, self._device, self._pinned = self._device, [], []
        self._capacity = (0, 0, 0)
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
        inner: the same of what is between parts.
    """

    shape: Shape
    outputs: tuple[Shape, ...]
    input_bytes: int
    offsets: tuple[int, ...]
    inner: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of the input, the outputs, and what is between parts."""
        return self.input_bytes, self.offsets[-1], self.inner[-1]


def _offsets(specs: Sequence[TensorSpec], shapes: Sequence[Shape]) -> tuple[int, ...]:
    """Return where tensors of these shapes begin in one block, each aligned, and where the block ends."""
    found = [0]
    for spec, shape in zip(specs, shapes, strict=True):
        found.append(found[-1] + -(-size_in_bytes(spec, shape) // ALIGNMENT) * ALIGNMENT)
    return tuple(found)


def sizes_of(spec: TensorSpec) -> Shape:
    """Return the sizes of a tensor's dimensions after the batch; 1 where one is free."""
    return tuple(int(size or 1) for size in spec.shape[1:])


def is_free(spec: TensorSpec) -> bool:
    """Return whether a tensor has a free size besides the batch."""
    return None in spec.shape[1:]


def size_in_bytes(spec: TensorSpec, shape: Shape) -> int:
    """Return the bytes of a tensor of a shape."""
    return spec.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
