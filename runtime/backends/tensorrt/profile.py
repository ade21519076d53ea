"""An engine's layers timed by the library's own profiler. For measurements: it runs kernel by kernel and waits for each call."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.cuda.driver import DeviceMemory, Stream, copy_to_device, synchronize
from mtl_deploy.runtime.errors import RunError

from .backend import TensorRTBackend
from .engine import LoadedEngine
from .memory import Buffers

_Resource = TypeVar("_Resource")


@dataclass(frozen=True)
class Layer:
    """What the library says about one layer of an engine.

    Attributes:
        name: as its profiler reports it; ``conv1 + relu1`` where nodes were fused.
        metadata: where it comes from, such as ``[ONNX Layer: conv1]``; empty where the library does not say.
        type: the library's own, such as ``CaskConvolution``; empty where it does not say.
    """

    name: str
    metadata: str = ""
    type: str = ""


class LayerTimes:
    """Times an engine's layers on the GPU. For one thread and one batch; closed after use.

    It has an execution context, a stream and memory of its own. No CUDA graph is recorded: the profiler cannot look into one.

    Args:
        backend: a loaded engine, which must stay open.
        images: the batch.

    Raises:
        DeviceMemoryError: the GPU's memory is full.
        RunError: the library returns no context, or refuses the batch.
    """

    def __init__(self, backend: TensorRTBackend, images: Array) -> None:
        self._loaded: LoadedEngine = backend.loaded
        self._context = self._loaded.context
        self._execution: Any = None
        self._closers: list[Any] = []
        self._reported: list[tuple[str, float]] = []
        try:
            with self._context.active():
                self._stream = self._keep(Stream())
                buffers = self._keep(Buffers(self._loaded.input, self._loaded.outputs, self._context))
                buffers.grow(len(images))
                layout = buffers.layout(len(images))
                activations = self._keep(DeviceMemory(self._loaded.library.device_memory_size(self._loaded.engine)))
                self._execution = self._loaded.make_execution(activations)
                self._loaded.bind(self._execution, layout.binding)
                layout.staging[...] = images
                copy_to_device(
                    layout.binding.device_input, layout.binding.host_input, layout.input_bytes, self._stream.handle
                )
                self._enqueue()  # what is made on first use is made before the profiler listens
                self._profiler = make_profiler(self._loaded.library.module, self._report)
                self._execution.profiler = self._profiler
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # they hold the execution context, which must be freed first
            self.close()
            raise

    def _keep(self, resource: _Resource) -> _Resource:
        self._closers.append(resource)
        return resource

    def _report(self, name: str, ms: float) -> None:
        self._reported.append((name, ms))

    def _enqueue(self) -> None:
        self._loaded.enqueue(self._execution, self._stream.handle)
        synchronize(self._stream.handle)

    def measure(self) -> dict[str, float]:
        """Make one call and return each layer's milliseconds, by name in the order of execution; layers of one name are summed.

        Raises:
            RunError: the GPU or the library failed, or it reported nothing.
        """
        if self._execution is None:
            raise RunError("this profile is closed")
        title = self._loaded.library.title
        self._reported.clear()
        with self._context.active():
            self._enqueue()
        found: dict[str, float] = {}
        for name, ms in self._reported:
            found[name] = found.get(name, 0.0) + ms
        if not found:
            raise RunError(f"{title} reported no layer's time")
        return found

    def layers(self) -> list[Layer]:
        """Return what the library's inspector says about the layers; empty where its answer is not understood."""
        trt = self._loaded.library.module
        try:
            inspector = self._loaded.engine.create_engine_inspector()
            described = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))["Layers"]
        except (AttributeError, KeyError, TypeError, ValueError):
            return []
        return [
            Layer(str(one.get("Name", "")), str(one.get("Metadata", "")), str(one.get("LayerType", "")))
            if isinstance(one, dict)
            else Layer(str(one))
            for one in described
        ]

    def close(self) -> None:
        """Free what it holds; closing twice is allowed."""
        with suppress(RunError), self._context.active():
            self._execution = None  # before its memory, and in its CUDA context
            for name in ("_profiler", "_loaded"):
                self.__dict__.pop(name, None)
            while self._closers:
                with suppress(RunError):
                    self._closers.pop().close()


def make_profiler(module: Any, report: Callable[[str, float], None]) -> Any:
    """Return a profiler for a TensorRT module; its class is only known once that is imported."""

    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self, report: Callable[[str, float], None]) -> None:
            module.IProfiler.__init__(self)
            self.report = (
                report  # not the class's: only garbage collection frees a class, and the engine must be freed earlier
            )

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.report(layer_name, float(ms))

    return Profiler(report)
