"""TensorRT and TensorRT-RTX behind the backend protocol: runs an engine."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .backend import Array, TensorSpec
from .cuda import ALIGNMENT, Context, DeviceMemory, PinnedMemory
from .device_array import DeviceArray, DeviceView, is_on_device, view
from .engine_record import EngineRecord
from .errors import BackendError, DeviceLostError, DeviceMemoryError, ImageError, MtlError, OptionError, RunError
from .tensorrt_lane import Lane, LoadedEngine
from .tensorrt_log import Messages, make_logger
from .tensorrt_memory import sizes_of

CONTEXTS = 4  # at most, unless told: calls of more threads wait for one another
GRAPHS = 8  # recorded a context, unless told


class TensorRTBackend:
    """Runs one engine. Safe to call from several threads: each call has an execution context to itself, from a pool.

    Args:
        read: returns the plan's bytes, checked against the manifest: a plan can run code.
        record: what the manifest says of it.
        where: how errors call the file.
        device: CUDA's number of the GPU; None: the one of the thread's current CUDA context, else 0.
        contexts: execution contexts at most. Each has activation memory of its own.
        graphs: CUDA graphs that a context keeps, one a batch size and set of buffers; 0 turns them off.
        runtime_cache: TensorRT-RTX's file of compiled kernels; None: beside the engine; False: none.

    Raises:
        BackendError: the engine does not fit this machine, or the library refuses it.
        DeviceMemoryError: the GPU's memory is full.
    """

    name = "tensorrt"
    metadata: Mapping[str, str] = {}

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
        self._cache_file: Path | None = None
        self._context = Context(device)
        try:
            with self._context.active():
                self._loaded = self._load(library, read, record, where, graphs, runtime_cache)
                self._free.append(self._make())
        except BaseException:
            self.close()
            raise
        self.details = f"{library.title}, {self._context.gpu.name}"
        self.metadata: Mapping[str, str] = {}  # an engine has none; the manifest has its signature
        self.inputs = (self._loaded.input,)
        self.outputs = self._loaded.outputs
        self._names = [spec.name for spec in self.outputs]
        self._specs = {spec.name: spec for spec in self.outputs}

    def _load(
        self,
        library: Any,
        read: Callable[[], bytes],
        record: EngineRecord,
        where: str,
        graphs: int,
        runtime_cache: str | os.PathLike[str] | bool | None,
    ) -> LoadedEngine:
        trt, messages = library.module, Messages()
        self._logger = make_logger(trt, messages)
        self._runtime = trt.Runtime(self._logger)
        if record.version_compatible:
            self._runtime.engine_host_code_allowed = True  # such a plan brings its runtime along
        engine = self._runtime.deserialize_cuda_engine(read())
        if engine is None:
            if messages.out_of_memory:
                raise DeviceMemoryError(f"{where}: no GPU memory is left for it ({messages.reason()})")
            gpu = self._context.gpu
            raise BackendError(
                f"{where}, {record.built_for}: {library.title} on {gpu.name} (SM {gpu.sm}) refuses it: {messages.reason()}; build "
                "it again on this machine"
            )
        config = None
        if library.is_rtx:
            self._cache_file = _cache_path(where, runtime_cache)
            config, self._cache = library.runtime_config(engine, _read_cache(self._cache_file))
        image, outputs = _tensors(trt, engine)
        if image is None or not outputs:
            raise BackendError(f"{where}: an engine has one input and an output a task; build it again with mtl-export")
        return LoadedEngine(library, engine, self._context, image, outputs, messages, graphs, config)

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any] | None = None,
        *,
        stream: int | None = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run once; see :meth:`~mtl_deploy.runtime.backend.Backend.run`."""
        image = inputs[self._loaded.input.name]
        pushed = self._context.enter()
        try:
            lane = self._acquire()
            try:
                if not on_device and into is None and isinstance(image, np.ndarray):  # the common case first
                    return lane.run(image, {}, outputs, {}, pinned=self._is_pinned(image), stream=stream)
                return self._run_device(lane, image, outputs, into or {}, stream, on_device)
            except DeviceLostError:
                self._lost = True
                raise
            finally:
                self._release(lane)
        finally:
            self._context.leave(pushed)

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
            image = self._checked(view(image, handle, "the image"), self._loaded.input, None)
        batch = image.shape[0]
        targets: dict[str, DeviceView] = {}
        found: dict[str, Any] = {}
        for name in outputs:
            array, spec = into.get(name), self._specs[name]
            if array is None and on_device:
                array = self._allocate(spec, batch, stream)
            if array is not None and not isinstance(array, np.ndarray):
                found[name] = array
                targets[name] = self._checked(view(array, handle, f"out[{name!r}]"), spec, batch)
        names = [name for name in outputs if name not in targets]
        host = {name: into[name] for name in names if name in into}
        pinned = isinstance(image, np.ndarray) and self._is_pinned(image)
        found |= lane.run(image, targets, names, host, pinned=pinned, stream=stream)
        return {name: found[name] for name in outputs}

    def _checked(self, array: DeviceView, spec: TensorSpec, batch: int | None) -> DeviceView:
        shape = (batch if batch is not None else array.shape[0] if array.shape else 0, *sizes_of(spec))
        if array.dtype != spec.dtype or array.shape != shape:
            raise ImageError(
                f"got {array.dtype} {array.shape} on the GPU for {spec.name!r}; expected {spec.dtype} {shape}"
            )
        if batch is not None and (array.address % ALIGNMENT or not array.writable):
            raise ImageError(f"the GPU array for {spec.name!r} must be writable and aligned to {ALIGNMENT} bytes")
        return array

    def _allocate(self, spec: TensorSpec, batch: int, stream: int | None) -> DeviceArray:
        shape = (batch, *sizes_of(spec))
        memory = DeviceMemory(spec.dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        context = self._context

        def free() -> None:
            with suppress(RunError), context.active():
                memory.close()  # waits for the device's work, so nothing still uses it

        return DeviceArray(memory.address, shape, spec.dtype, stream or None, free)

    # pinned memory for callers

    def pinned(self, batch: int) -> Array:
        """Return an input array in pinned memory: a call with it copies to the GPU without a detour.

        Args:
            batch: number of images.
        """
        image = self._loaded.input
        shape = (batch, *sizes_of(image))
        with self._context.active():
            memory = PinnedMemory(image.dtype.itemsize * int(np.prod(shape, dtype=np.int64)), self._context)
        self._pinned.add(memory.address)
        memory.when_freed(self._pinned.discard, memory.address)
        return memory.array(image.dtype, shape)

    def _is_pinned(self, image: Array) -> bool:
        return bool(self._pinned) and image.ctypes.data in self._pinned

    # the pool

    def _make(self) -> Lane:
        lane = Lane(self._loaded)
        self._made += 1
        return lane

    def _acquire(self) -> Lane:
        with self._condition:
            while True:
                if self._closed:
                    raise RunError("the model is closed; load it again")
                if self._free:
                    return self._free.pop()
                if self._made < self._limit:
                    try:
                        return self._make()
                    except DeviceMemoryError:
                        if self._made == 0:
                            raise
                        self._limit = self._made  # go on with those that fit
                self._condition.wait()

    def _release(self, lane: Lane) -> None:
        with self._condition:
            self._free.append(lane)
            self._condition.notify()

    def close(self) -> None:
        """Free contexts, memory and engine, once running calls have ended. After a lost device, what can be freed is."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
            while len(self._free) < self._made:
                self._condition.wait()
        with suppress(MtlError):
            pushed = self._context.enter()
            for lane in self._free:
                lane.close()
            if not self._lost:
                self._save_cache()
            self._free = []
            for name in ("_loaded", "_cache", "_runtime", "_logger"):  # an engine must go before its runtime
                self.__dict__.pop(name, None)
            self._context.leave(pushed)
        self._context.close(lost=self._lost)

    def __del__(self) -> None:
        if "_condition" in self.__dict__:
            with suppress(Exception):  # the interpreter may be going down
                self.close()

    @property
    def graphs_off(self) -> str | None:
        """Why calls are not replayed as CUDA graphs; None where they are, or will be."""
        with self._condition:
            return next((lane.graphs_off for lane in self._free if lane.graphs_off), None)

    def _save_cache(self) -> None:
        if self._cache_file is None or "_cache" not in self.__dict__:
            return
        content = self._cache.serialize()
        if content is None or not content.nbytes or (self._cache_file.exists() and _same(self._cache_file, content)):
            return
        with suppress(OSError):  # a read-only bundle: the next start compiles again
            descriptor, name = tempfile.mkstemp(prefix=f".{self._cache_file.name}.", dir=self._cache_file.parent)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(memoryview(content))
            Path(name).replace(self._cache_file)


def _tensors(trt: Any, engine: Any) -> tuple[TensorSpec | None, tuple[TensorSpec, ...]]:
    """Return the engine's one input, or None where it has another number of them, and its outputs."""
    specs: dict[Any, list[TensorSpec]] = {trt.TensorIOMode.INPUT: [], trt.TensorIOMode.OUTPUT: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        shape = tuple(None if size < 0 else int(size) for size in engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        specs[engine.get_tensor_mode(name)].append(TensorSpec(name, dtype, shape))
    images, outputs = specs[trt.TensorIOMode.INPUT], specs[trt.TensorIOMode.OUTPUT]
    return (images[0] if len(images) == 1 else None), tuple(outputs)


def _cache_path(where: str, chosen: str | os.PathLike[str] | bool | None) -> Path | None:
    if chosen is False:
        return None
    return Path(f"{where}.cache") if chosen in (None, True) else Path(os.fspath(chosen))  # type: ignore[arg-type]


def _read_cache(file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError:
        return None  # the first run


def _same(file: Path, content: Any) -> bool:
    return bool(file.stat().st_size == content.nbytes)
