"""TensorRT without a GPU, for tests: its Python interface in the versions that the runtime knows, over the simulated driver.

A plan is ``SIMPLAN``, its profile and an ONNX graph. An execution context runs that graph with ONNX Runtime when its stream comes
to it. As TensorRT does, it returns None or False and logs an error, where others would raise.
"""

from __future__ import annotations

import ctypes
import enum
import struct
import types
from collections import deque
from functools import lru_cache
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import onnxruntime

from tests.fakes.config import Alive, Allocation, DataType, RuntimeConfig, Severity, Specialization, TensorIOMode
from tests.fakes.cuda import ALIGNMENT, SimulatedCuda
from tests.fakes.inspector import Inspector, LayerInformationFormat
from tests.fakes.objects import Failure
from tests.fakes.start import INSUFFICIENT, ProcessEndedError, Speech, Started

MAGIC = b"SIMPLAN"
ACTIVATIONS = 1000  # bytes of activation memory an image of the largest batch
HEADER = struct.Struct("<7sHH")


def make_plan(graph: bytes, batch_max: int, batch_min: int = 1) -> bytes:
    """Return a plan of a graph."""
    return HEADER.pack(MAGIC, batch_min, batch_max) + graph


_TYPES = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(int32)": ("INT32", np.int32),
}


@lru_cache(maxsize=32)
def session_of(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def make_tensorrt(cuda: SimulatedCuda, version: str = "10.3.0", *, rtx: bool = False) -> Any:
    """Make the module ``tensorrt``, or ``tensorrt_rtx``, of a version.

    Besides TensorRT's names it has

    - ``deserialized``: the plans that it was given;
    - ``runtime_error``: a message with which it refuses to make a runtime;
    - ``built_for``: the major version of CUDA that it needs of the driver;
    - ``started``: how many runtimes and builders were asked for;
    - ``capturable``: what TensorRT-RTX says of streams;
    - ``refuse_capture``, ``allocate_in_capture``: whether an enqueue fails, or allocates, while a graph is captured;
    - ``reported``: the layers' times that a profiler is told after each enqueue;
    - ``compiled``: the shapes for which TensorRT-RTX had to compile kernels.
    """
    name = "tensorrt_rtx" if rtx else "tensorrt"
    trt: Any = types.ModuleType(name)
    trt.__spec__ = ModuleSpec(name, None)
    trt.__version__ = version
    major = 11 if rtx else int(version.split(".")[0])
    sized = major > 10 or (major == 10 and not version.startswith("10.0."))  # device_memory_size_v2, set_device_memory
    trt.built_for, trt.started = 12 if major < 11 else 13, 0
    trt.deserialized, trt.compiled, trt.reported = [], [], []
    trt.under_way = {}  # by activation memory: the enqueues that have not run yet
    trt.runtime_error = None
    trt.capturable, trt.refuse_capture, trt.allocate_in_capture = True, False, False

    flags = {8: ["EXPLICIT_BATCH", "EXPLICIT_PRECISION"], 10: ["EXPLICIT_BATCH", "STRONGLY_TYPED"]}
    NetworkDefinitionCreationFlag = enum.IntEnum(  # type: ignore[misc]
        "NetworkDefinitionCreationFlag", flags.get(major, ["STRONGLY_TYPED"]), start=0
    )

    class ILogger:
        def __init__(self) -> None:
            self.made = True

    class IProfiler:
        def __init__(self) -> None:
            self.made = True

    speech = Speech(cuda.violations)

    class Runtime(Started):
        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            trt.started += 1
            self.logger = logger
            self.engine_host_code_allowed = False
            speech.begin(self, logger)
            if trt.runtime_error is not None:
                logger.log(Severity.ERROR, trt.runtime_error)
                raise TypeError("pybind11::init(): factory function returned nullptr")
            if not rtx and cuda.version // 1000 < trt.built_for:
                self.fail(major, lambda severity, text: logger.log(Severity(severity), text), cuda.violations)

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            trt.deserialized.append(plan)
            if plan[: len(MAGIC)] != MAGIC:
                text = "Error Code 1: Serialization (Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.)"
                self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: {text}")
                self.logger.log(
                    Severity.ERROR, "[runtime.cpp::deserialize::66] Error Code 4: Internal Error (it failed.)"
                )
                return None
            if cuda.version // 1000 < trt.built_for:
                self.logger.log(Severity.ERROR, INSUFFICIENT)
                return None
            return _give(self.logger, lambda: Engine(self, plan))

    class Builder:
        """It starts, or ends the process; it builds nothing."""

        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, ILogger)
            trt.started += 1
            speech.begin(self, logger)
            if not rtx and cuda.version // 1000 < trt.built_for:
                cuda.violations.append("the process ended in Builder(logger)")
                raise ProcessEndedError

    class Owner:
        """Something that holds memory of its own on the GPU."""

        def __init__(self, logger: Any, size: int) -> None:
            self.logger = logger
            with cuda.lock:
                self.memory = 0
                self.cuda_context = cuda.require_context()
                self.memory = cuda.allocate(size)

        def __del__(self) -> None:
            if self.memory:
                cuda.free(self.memory)

        def complain(self, text: str) -> bool:
            speech.say(Severity.ERROR, f"[executionContext.cpp::check::99] Error Code 3: API Usage Error ({text}.)")
            return False

    class Engine(Owner):
        def __init__(self, runtime: Any, plan: bytes) -> None:
            super().__init__(runtime.logger, 4096)
            self.runtime = runtime
            _, self.batch_min, self.batch_max = HEADER.unpack_from(plan)
            self.graph = plan[HEADER.size :]
            self.session = session_of(self.graph)
            self.tensors = {value.name: (value, TensorIOMode.INPUT) for value in self.session.get_inputs()}
            self.tensors |= {value.name: (value, TensorIOMode.OUTPUT) for value in self.session.get_outputs()}
            self.num_io_tensors = len(self.tensors)
            self.activations = ACTIVATIONS * self.batch_max

        if major < 11:

            @property
            def device_memory_size(self) -> int:
                assert not sized, "deprecated"
                return self.activations

        if sized:

            @property
            def device_memory_size_v2(self) -> int:
                return self.activations

        def get_tensor_name(self, index: int) -> str:
            return list(self.tensors)[index]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name][0].shape)

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType[_TYPES[self.tensors[name][0].type][0]]

        def get_tensor_mode(self, name: str) -> Any:
            return self.tensors[name][1]

        if major < 11:

            def create_execution_context_without_device_memory(self) -> Any:
                assert major < 10, "deprecated"
                return _give(self.logger, lambda: Execution(self))

        if major >= 10:

            def create_execution_context(self, chosen: Any) -> Any:
                if rtx:
                    assert isinstance(chosen, RuntimeConfig)
                    assert chosen.strategy is Allocation.USER_MANAGED
                    assert chosen.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
                    return _give(self.logger, lambda: Execution(self, chosen.cache))
                assert chosen is Allocation.USER_MANAGED
                return _give(self.logger, lambda: Execution(self))

        if rtx:

            def create_runtime_config(self) -> Any:
                return RuntimeConfig()

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            assert profile_index == 0
            rest = tuple(max(size, 1) for size in self.get_tensor_shape(name)[1:])
            return [(batch, *rest) for batch in (self.batch_min, self.batch_min, self.batch_max)]

        def create_engine_inspector(self) -> Any:
            return Inspector(self, major)

    class Execution(Owner):
        def __init__(self, engine: Any, cache: Any = None) -> None:
            super().__init__(engine.logger, 512)
            self.engine, self.cache = engine, cache
            self.addresses: dict[str, int] = {}
            self.shapes: dict[str, tuple[int, ...]] = {}  # of the inputs
            self.given = (0, 0)
            self.profiler: Any = None
            self.plain: dict[str, tuple[int, ...]] | None = None  # the shapes of the last enqueue that was not captured
            self.changes = 0

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            own = self.engine.get_tensor_shape(name)
            if len(shape) != len(own) or any(size not in (-1, new) for size, new in zip(own, shape, strict=True)):
                return self.complain(f"shape {shape} of {name} does not fit {own}")
            if not self.engine.batch_min <= shape[0] <= self.engine.batch_max:
                return self.complain(f"batch {shape[0]} is outside the profile")
            self.changes += shape != self.shapes.get(name)
            self.shapes[name] = shape
            return True

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            session = self.engine.session
            if not self.ready():
                return self.engine.get_tensor_shape(name)
            zeros = {one.name: np.zeros(self.shapes[one.name], _TYPES[one.type][1]) for one in session.get_inputs()}
            return tuple(session.run([name], zeros)[0].shape)

        def ready(self) -> bool:
            return all(one.name in self.shapes for one in self.engine.session.get_inputs())

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert name in self.engine.tensors
            if address % ALIGNMENT or not address:
                return self.complain(f"address {address:#x} of {name} is not aligned")
            self.changes += self.addresses.get(name) != address
            self.addresses[name] = address
            return True

        if sized:

            def set_device_memory(self, address: int, size: int) -> None:
                assert address % ALIGNMENT == 0
                self.given = address, size

            @property
            def device_memory(self) -> None:
                raise AssertionError("deprecated")

        else:

            def _take(self, address: int) -> None:
                assert address % ALIGNMENT == 0
                self.given = address, self.engine.activations

            device_memory = property(None, _take)

        if rtx:

            def is_stream_capturable(self, stream: int) -> bool:
                assert stream in cuda.streams
                return bool(trt.capturable)

        def execute_async_v3(self, stream: int) -> bool:
            with cuda.lock:
                try:
                    done = self._enqueue(stream)
                except Failure as failure:
                    return self.complain(f"Cuda Runtime: {failure.code.name}")
            for name, ms in trt.reported if self.profiler is not None else ():
                assert self.profiler.made
                self.profiler.report_layer_time(name, ms)
            return done

        def _enqueue(self, stream: int) -> bool:
            if cuda.require_context() is not self.cuda_context:
                return self.complain("another CUDA context is current")
            if set(self.addresses) != set(self.engine.tensors) or not self.ready():
                return self.complain("a tensor has no address, or an input no shape")
            if self.given[1] < self.engine.activations:
                return self.complain("the device memory is too small, or none was set")
            capture = cuda.capture_of(stream)
            if capture is None:
                self.plain = dict(self.shapes)
            elif self.plain != self.shapes or trt.refuse_capture:
                capture.valid = False
                return self.complain("the shape changed since the last enqueue; enqueue once before capturing")
            elif trt.allocate_in_capture:
                cuda.cuMemAlloc(16)
            batch = next(iter(self.shapes.values()))[0]
            if self.cache is not None and batch not in self.cache.shapes:
                trt.compiled.append(batch)
                self.cache.shapes.add(batch)
            cuda.enqueue(stream, self._kernel(captured=capture is not None))
            return True

        def _kernel(self, captured: bool) -> Any:
            engine, addresses, shapes, given = self.engine, dict(self.addresses), dict(self.shapes), self.given[0]
            holder = [self] if not captured else [Alive(self)]
            changes, mine, order = self.changes, deque(), trt.under_way.setdefault(given, deque())

            def queued() -> None:
                mine.append(object())
                order.append(mine[-1])

            def work() -> None:
                execution = holder[0] if not captured else holder[0].get()
                if execution is None or (captured and execution.changes != changes):
                    cuda.violations.append(
                        "a graph was launched after the context that it was captured from had changed"
                    )
                token = mine.popleft()
                if order[0] is not token:
                    cuda.violations.append("two enqueues that share activation memory were not ordered")
                order.remove(token)
                cuda.require_memory(given, engine.activations)
                ctypes.memset(given, 0xEE, engine.activations)
                session = engine.session
                tensors = {}
                for value in session.get_inputs():
                    dtype, shape = np.dtype(_TYPES[value.type][1]), shapes[value.name]
                    size = int(np.prod(shape)) * dtype.itemsize
                    cuda.require_memory(addresses[value.name], size)
                    held = ctypes.string_at(addresses[value.name], size)
                    tensors[value.name] = np.frombuffer(held, dtype).reshape(shape)
                names = [value.name for value in session.get_outputs()]
                for output, array in zip(names, session.run(names, tensors), strict=True):
                    cuda.require_memory(addresses[output], array.nbytes)
                    ctypes.memmove(addresses[output], np.ascontiguousarray(array).ctypes.data, array.nbytes)

            work.queued = queued  # type: ignore[attr-defined]
            return work

    def _give(logger: Any, make: Any) -> Any:
        """Return what is made, or None and an error, as TensorRT does."""
        try:
            return make()
        except Failure as failure:
            if failure.code.name == "CUDA_ERROR_OUT_OF_MEMORY":
                logger.log(
                    Severity.ERROR, "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
                )
            else:
                logger.log(
                    Severity.ERROR, f"[cudaHelpers.cpp::check::12] Error Code 1: Cuda Runtime ({failure.code.name})"
                )
            return None

    trt.ILogger, trt.IProfiler, trt.Runtime, trt.TensorIOMode = ILogger, IProfiler, Runtime, TensorIOMode
    trt.Builder = Builder
    trt.NetworkDefinitionCreationFlag, trt.LayerInformationFormat = (
        NetworkDefinitionCreationFlag,
        LayerInformationFormat,
    )
    if major >= 10:
        trt.ExecutionContextAllocationStrategy = Allocation
    if rtx:
        trt.DynamicShapesKernelSpecializationStrategy = Specialization
    return trt
