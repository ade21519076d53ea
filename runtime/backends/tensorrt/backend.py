"""TensorRT and TensorRT-RTX behind the backend protocol: runs an engine."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array, TensorSpec
from mtl_deploy.runtime.cuda.arrays import LEGACY_STREAM, DeviceArray, DeviceView, is_on_device
from mtl_deploy.runtime.cuda.context import Context
from mtl_deploy.runtime.cuda.driver import DeviceMemory, PinnedMemory
from mtl_deploy.runtime.errors import BackendError, DeviceLostError, DeviceMemoryError, MtlError, OptionError, RunError

from .arrays import accept
from .engine import LoadedEngine
from .kernel_cache import KernelCache, cache_path, read_cache
from .lane import Lane
from .library import Library
from .log import Messages
from .memory import Shape, size_in_bytes, sizes_of
from .record import EngineRecord
from .split.loaded import LoadedParts
from .start import start_runtime

_CLOSED = "the model is closed; load it again"
CONTEXTS = 4  # at most, by default: calls from more threads wait for one another
GRAPHS = 8  # recorded per context, by default


class TensorRTBackend:
    """Runs one engine. Safe to call from several threads: each call has an execution context to itself, from a pool.

    Args:
        read: returns the plan's bytes, checked against the manifest: a plan can run code.
        record: what the manifest says about it.
        where: how errors call the file.
        device: CUDA's number of the GPU; None: the one of the thread's current CUDA context, else 0.
        contexts: execution contexts at most. Each has activation memory of its own.
        graphs: CUDA graphs that a context keeps, one per batch size and set of buffers; 0 turns them off. Each is captured from
            another execution context of its own, which shares the activation memory.
        runtime_cache: TensorRT-RTX's file of compiled kernels; None: beside the engine; False: none.

    Raises:
        BackendError: the engine does not fit this machine, or the library refuses it.
        DeviceMemoryError: the GPU's memory is full.
    """

    name = "tensorrt"

    def __init__(
        self,
        read: Callable[[], bytes],
        record: EngineRecord,
        *,
        where: str = "engine",
        device: int | None = None,
        contexts: int = CONTEXTS,
        graphs: int = GRAPHS,
        runtime_cache: str | os.PathLike[str] | bool | None = None,
    ) -> None:
        if contexts < 1 or graphs < 0:
            raise OptionError(f"contexts={contexts}, graphs={graphs}: use 1 context or more, and 0 graphs or more")
        library, _ = record.require_fit(device)
        self._condition = threading.Condition()
        self._free: list[Lane] = []
        self._made = 0
        self._limit = contexts
        self._closed = False
        self._lost = False
        self._pinned: set[int] = set()  # addresses of the arrays that callers hold
        self._caches: list[KernelCache] = []
        self._context = Context(device)
        try:
            with self._context.active():
                self._loaded: LoadedEngine | LoadedParts = self._load(
                    library, read, record, where, graphs, runtime_cache
                )
                self._free.append(Lane(self._loaded))
                self._made = 1
        except BaseException as error:
            self._lost = isinstance(error, DeviceLostError)
            _clear_frames(error)  # they hold the engine, which must be freed before its context
            self.close()
            raise
        self.details = f"{library.title}, {self._context.gpu.name}"
        self.metadata: Mapping[str, str] = {}  # an engine has none; the manifest has its signature
        self.inputs: tuple[TensorSpec, ...] = (self._loaded.input,)
        self.outputs = self._loaded.outputs
        self._names = [spec.name for spec in self.outputs]
        self._specs = {spec.name: spec for spec in self.outputs}

    def _load(
        self,
        library: Library,
        read: Callable[[], bytes],
        record: EngineRecord,
        where: str,
        graphs: int,
        runtime_cache: str | os.PathLike[str] | bool | None,
    ) -> LoadedEngine | LoadedParts:
        messages = Messages()
        self._start(library, messages, record, where)
        engine, config = self._deserialize(library, messages, read, record, where, cache_path(where, runtime_cache))
        images, outputs = tensors_of(library, engine)
        if len(images) != 1 or not outputs:
            raise BackendError(
                f"{where}: an engine has one input and one output per task; build it again with mtl-export"
            )
        return LoadedEngine(library, engine, self._context, images[0], outputs, messages, graphs, config)

    def _start(self, library: Library, messages: Messages, record: EngineRecord, where: str) -> None:
        try:
            self._runtime = start_runtime(library, messages)
        except BackendError as error:
            raise BackendError(f"{where}, {record.built_for}: {error}") from error

    def _deserialize(
        self,
        library: Library,
        messages: Messages,
        read: Callable[[], bytes],
        record: EngineRecord,
        where: str,
        cached: Path | None,
    ) -> tuple[Any, Any]:
        """Return an engine and, for TensorRT-RTX, the configuration of its contexts."""
        if record.version_compatible:
            self._runtime.engine_host_code_allowed = True  # such a plan brings its runtime along
        engine = self._runtime.deserialize_cuda_engine(read())
        if engine is None:
            self._context.memory()  # raises where the cause is an unusable context
            if messages.out_of_memory:
                raise DeviceMemoryError(f"{where}: no GPU memory is left for it ({messages.reason()})")
            gpu = self._context.gpu
            raise BackendError(
                f"{where}, {record.built_for}: {library.title} on {gpu.name} (SM {gpu.sm}) refuses it: {messages.reason()}; build "
                "it again on this machine"
            )
        config = None
        if library.is_rtx:
            config, cache = library.runtime_config(engine, read_cache(cached))
            self._caches.append(KernelCache(cached, cache))
        return engine, config

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any] | None = None,
        *,
        stream: int | None = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run once; see :meth:`~mtl_deploy.runtime.backends.base.Backend.run`."""
        try:
            lane = self._acquire()  # from here on nobody can close the model
            try:
                image = inputs[self._loaded.input.name]
                pushed = self._context.enter()
                try:
                    if not on_device and into is None and isinstance(image, np.ndarray):  # the common case first
                        return lane.run(image, {}, outputs, {}, pinned=self._is_pinned(image), stream=stream)
                    return self._run_device(lane, image, outputs, into or {}, stream, on_device)
                finally:
                    self._context.leave(pushed)
            finally:
                self._release(lane)
        except DeviceLostError as error:
            self._lost = True
            _clear_frames(error)  # they hold pinned memory, and callers may hold the error while they load again
            raise

    def _run_device(
        self,
        lane: Lane,
        image: Any,
        outputs: Sequence[str],
        into: Mapping[str, Any],
        stream: int | None,
        on_device: bool,
    ) -> dict[str, Any]:
        handle = lane.stream.handle if stream is None else stream
        if is_on_device(image):
            image = accept(image, handle, "the image", self._context.device, self._loaded.input)
        shapes = lane.output_shapes(image.shape)
        targets: dict[str, DeviceView] = {}
        found: dict[str, Any] = {}
        for name in outputs:
            array, spec = into.get(name), self._specs[name]
            if array is None and on_device:
                array = self._allocate(spec, shapes[name], stream)
            if array is not None and not isinstance(array, np.ndarray):
                found[name] = array
                targets[name] = accept(array, handle, f"out[{name!r}]", self._context.device, spec, shapes[name])
        names = [name for name in outputs if name not in targets]
        host = {name: into[name] for name in names if name in into}
        pinned = isinstance(image, np.ndarray) and self._is_pinned(image)
        found |= lane.run(image, targets, names, host, pinned=pinned, stream=stream)
        return {name: found[name] for name in outputs}

    def _allocate(self, spec: TensorSpec, shape: Shape, stream: int | None) -> DeviceArray:
        memory = DeviceMemory(size_in_bytes(spec, shape))
        context = self._context
        context.hold()

        def free() -> None:
            with suppress(RunError), context.active():
                memory.close()  # waits for the work on the device, so nothing uses it any more
            context.drop()

        on = LEGACY_STREAM if stream == 0 else stream  # the array interface has no stream 0
        return DeviceArray(memory.address, shape, spec.dtype, on, free)

    # pinned memory for callers

    def pinned(self, batch: int, sample: Shape | None = None) -> Array:
        """Return an input array in pinned memory: a call copies it to the GPU directly.

        Args:
            batch: number of images.
            sample: an image's shape; None: the engine's, whose sizes are fixed.
        """
        if self._closed:
            raise RunError(_CLOSED)
        image = self.inputs[0]
        shape = (batch, *(sizes_of(image) if sample is None else sample))
        with self._context.active():
            memory = PinnedMemory(size_in_bytes(image, shape), self._context)
        self._pinned.add(memory.address)
        memory.when_freed(self._pinned.discard, memory.address)
        return memory.array(image.dtype, shape)

    def _is_pinned(self, image: Array) -> bool:
        return bool(self._pinned) and image.ctypes.data in self._pinned

    # the pool

    def _acquire(self) -> Lane:
        while True:
            with self._condition:
                while not self._free and self._made >= self._limit and not self._closed:
                    self._condition.wait()
                if self._closed:
                    raise RunError(_CLOSED)
                if self._free:
                    return self._free.pop()
                self._made += 1
            try:  # unlocked: calls on the other lanes continue meanwhile
                with self._context.active():
                    return Lane(self._loaded)
            except BaseException as error:
                with self._condition:
                    self._made -= 1
                    self._condition.notify_all()
                    if not isinstance(error, DeviceMemoryError):
                        raise
                    self._limit = self._made  # continue with those that fit

    def _release(self, lane: Lane) -> None:
        with self._condition:
            self._free.append(lane)
            self._condition.notify()

    def close(self) -> None:
        """Free contexts, memory and engine, once running calls have ended. After a lost device, it frees what it can."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
            while len(self._free) < self._made:
                self._condition.wait()
        try:
            with self._context.active():
                self._let_go()
        except MtlError:  # a borrowed context that no longer exists
            self._let_go()
        self._context.close(lost=self._lost)

    def _let_go(self) -> None:
        while self._free:
            self._free.pop().close()
        while self._caches:
            cache = self._caches.pop()
            if not self._lost:
                cache.save()
            del cache
        for name in ("_loaded", "_found", "_runtime"):  # an engine must be freed before its runtime
            self.__dict__.pop(name, None)

    def __del__(self) -> None:
        if "_condition" in self.__dict__:
            with suppress(Exception):  # the interpreter may be shutting down
                self.close()

    @property
    def loaded(self) -> LoadedEngine:
        """The engine and what its contexts need, for measurements (``timing.py``, ``together.py``, ``profile.py``).

        Raises:
            OptionError: the network is in parts.
        """
        if not isinstance(self._loaded, LoadedEngine):
            raise OptionError("this network is loaded in parts; load it whole to measure its engine")
        return self._loaded

    @property
    def graphs_off(self) -> str | None:
        """Why calls are not replayed as CUDA graphs; None where they are, or will be."""
        with self._condition:
            return next((lane.graphs_off for lane in self._free if lane.graphs_off), None)


def _clear_frames(error: BaseException) -> None:
    """Clear the frames of an error, and of the errors that led to it, except for frames that still run."""
    traceback.clear_frames(error.__traceback__)
    if isinstance(error.__context__, MtlError):
        _clear_frames(error.__context__)


def tensors_of(library: Library, engine: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return an engine's inputs and outputs."""
    trt = library.module
    specs: dict[Any, list[TensorSpec]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        dtype = library.numpy_dtype(engine.get_tensor_dtype(name))
        specs[engine.get_tensor_mode(name)].append(TensorSpec(name, dtype, shape))
    return tuple(specs[trt.TensorIOMode.INPUT]), tuple(specs[trt.TensorIOMode.OUTPUT])
