"""The least that running an engine takes: copy in, execute_async_v3, copy out, synchronize. The runtime is compared with it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from mtl_deploy.runtime.backends.tensorrt.memory import size_in_bytes, sizes_of


class BareLoop:
    """An execution context of a loaded model's engine, bound once to one image and called without the runtime.

    Args:
        model: loaded with ``backend="tensorrt"``; its engine is used, not its contexts.
    """

    def __init__(self, model: Any) -> None:
        from cuda.bindings import driver

        loaded = model.backend.loaded
        self._cuda = driver
        self._blocks: list[int] = []
        self._host: list[int] = []
        with loaded.context.active():
            self._stream = self._ok(driver.cuStreamCreate(1))
            size = loaded.library.device_memory_size(loaded.engine)
            self._execution = loaded.library.create_context(loaded.engine, loaded.runtime_config)
            loaded.library.set_device_memory(self._execution, self._device(size), size)
            image = loaded.input
            self._bytes = size_in_bytes(image, (1, *sizes_of(image)))
            self._input, self._source = self._device(self._bytes), self._pinned(self._bytes)
            self._execution.set_input_shape(image.name, (1, *sizes_of(image)))
            self._execution.set_tensor_address(image.name, self._input)
            offsets = [256 * position for position in range(len(loaded.outputs))]
            self._size = 256 * len(offsets)
            self._outputs, self._target = self._device(self._size), self._pinned(self._size)
            for spec, offset in zip(loaded.outputs, offsets, strict=True):
                assert size_in_bytes(spec, (1, *sizes_of(spec))) <= 256, "BareLoop is for small outputs"
                self._execution.set_tensor_address(spec.name, self._outputs + offset)
        self._handle = int(self._stream)

    def __call__(self) -> None:
        cuda, stream = self._cuda, self._handle
        cuda.cuMemcpyHtoDAsync(self._input, self._source, self._bytes, stream)
        self._execution.execute_async_v3(stream)
        cuda.cuMemcpyDtoHAsync(self._target, self._outputs, self._size, stream)
        cuda.cuStreamSynchronize(stream)

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cuda.cuStreamSynchronize(self._handle)
        del self._execution
        for block in self._blocks:
            self._cuda.cuMemFree(block)
        for address in self._host:
            self._cuda.cuMemFreeHost(address)
        self._cuda.cuStreamDestroy(self._stream)

    def _device(self, size: int) -> int:
        self._blocks.append(int(self._ok(self._cuda.cuMemAlloc(max(size, 1)))))
        return self._blocks[-1]

    def _pinned(self, size: int) -> int:
        self._host.append(int(self._ok(self._cuda.cuMemHostAlloc(size, int(self._cuda.CU_MEMHOSTALLOC_PORTABLE)))))
        return self._host[-1]

    def _ok(self, result: tuple[Any, ...]) -> Any:
        assert result[0] == 0, result[0]
        return result[1]
