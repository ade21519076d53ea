"""The memory of a lane: pinned staging and device buffers for one batch of inputs and outputs, laid out once a batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .backend import Array, TensorSpec
from .cuda import ALIGNMENT, DeviceMemory, PinnedMemory
from .cuda_context import Context


class Binding(NamedTuple):
    """What one enqueue reads and writes: the key of a recorded graph.

    Attributes:
        batch: number of images.
        host_input: pinned address to copy from; 0 where the input is on the device.
        device_input: the input tensor's address.
        outputs: the output tensors' addresses.
        to_host: whether the block of outputs is copied to pinned memory.
    """

    batch: int
    host_input: int
    device_input: int
    outputs: tuple[int, ...]
    to_host: bool


@dataclass(frozen=True)
class Layout:
    """Where a batch of one size lies.

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
    """Buffers that grow to the largest batch seen. The outputs lie in one block, so that one copy brings all of them.

    Args:
        image: the input's tensor.
        outputs: the outputs' tensors.
        context: current whenever a method is called.
    """

    def __init__(self, image: TensorSpec, outputs: Sequence[TensorSpec], context: Context) -> None:
        self._image, self._outputs, self._context = image, tuple(outputs), context
        self._device: list[DeviceMemory] = []  # input, outputs
        self._pinned: list[PinnedMemory] = []  # likewise
        self._capacity = 0
        self._layouts: dict[int, Layout] = {}

    def fits(self, batch: int) -> bool:
        """Return whether a batch needs no new memory."""
        return batch <= self._capacity

    def grow(self, batch: int) -> None:
        """Make room for a batch. All addresses change; work that uses the old ones is done.

        Raises:
            DeviceMemoryError: there is no such room; the buffers are then empty.
        """
        self.close()
        sizes = batch * bytes_of(self._image), self._offsets(batch)[-1]
        try:
            for size in sizes:
                self._device.append(DeviceMemory(size))
            self._pinned = [PinnedMemory(size, self._context) for size in sizes]
        except BaseException:
            self.close()
            raise
        self._capacity = batch

    def layout(self, batch: int) -> Layout:
        """Return where a batch that fits lies."""
        found = self._layouts.get(batch)
        if found is None:
            found = self._layouts[batch] = self._lay_out(batch)
        return found

    def _lay_out(self, batch: int) -> Layout:
        (input_memory, output_memory), (staging, results) = self._device, self._pinned
        offsets = self._offsets(batch)
        addresses = tuple(output_memory.address + offset for offset in offsets[:-1])
        return Layout(
            binding=Binding(batch, staging.address, input_memory.address, addresses, to_host=True),
            staging=staging.array(self._image.dtype, (batch, *sizes_of(self._image))),
            results={
                spec.name: results.array(spec.dtype, (batch, *sizes_of(spec)), offset)
                for spec, offset in zip(self._outputs, offsets, strict=False)
            },
            input_bytes=batch * bytes_of(self._image),
            output_bytes=offsets[-1],
        )

    def result_address(self) -> int:
        """Return the pinned address of the block of outputs."""
        return self._pinned[1].address

    def _offsets(self, batch: int) -> list[int]:
        offsets = [0]
        for spec in self._outputs:
            size = batch * bytes_of(spec)
            offsets.append(offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
        return offsets

    def close(self) -> None:
        """Free the memory; pinned memory goes when the last array over it does."""
        device, self._device, self._pinned = self._device, [], []
        self._capacity = 0
        self._layouts.clear()
        for memory in device:
            memory.close()


def sizes_of(spec: TensorSpec) -> tuple[int, ...]:
    """Return the sizes of a tensor's dimensions after the batch."""
    return tuple(int(size or 1) for size in spec.shape[1:])


def bytes_of(spec: TensorSpec) -> int:
    """Return the bytes of one image's part of a tensor."""
    return spec.dtype.itemsize * int(np.prod(sizes_of(spec), dtype=np.int64))
