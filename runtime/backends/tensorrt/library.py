"""The TensorRT that is installed: TensorRT 8.6, 10, 11 or TensorRT-RTX. All differences between them are in this module.

Only how to start them is elsewhere (:mod:`~mtl_deploy.runtime.backends.tensorrt.start`).

The graph carries the precision. TensorRT 10, 11 and TensorRT-RTX build it strongly typed; 8.6 gets the flags that fit the
graph, and for each layer the type that the graph gives it. See docs/engines.md for the differences and their sources.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import BackendError, OptionError

LIBRARIES = ("tensorrt", "tensorrt-rtx")  # in order of preference
_MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_DTYPES = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "UINT8": "u1", "INT32": "i4", "INT64": "i8", "BOOL": "?"}
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
EXTRAS = {name: f"pip install 'mtl-deploy[{name}]'" for name in LIBRARIES}


@dataclass(frozen=True)
class Library:
    """An installed TensorRT.

    Attributes:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        version: its own, such as ``10.3.0``.
        module: its Python module.
    """

    name: str
    version: str
    module: Any

    @property
    def title(self) -> str:
        """For people: ``TensorRT-RTX 1.7.1.116``."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it compiles for the GPU only when the engine is loaded, and builds without one."""
        return self.name == "tensorrt-rtx"

    @property
    def strongly_typed(self) -> bool:
        """Whether it computes with a graph's types as they are."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or self.major >= 10

    @property
    def major(self) -> int:
        """The version's first number."""
        return version_numbers(self.version)[0]

    # running

    def numpy_dtype(self, dtype: Any) -> np.dtype[Any]:
        """Return numpy's type for one of the library's; ``nptype`` of TensorRT 8.6 fails with NumPy 1.24 and later.

        Raises:
            BackendError: numpy has none.
        """
        if dtype.name not in _DTYPES:
            raise BackendError(
                f"an engine with an input or output of type {dtype.name}; build it again with mtl-export"
            )
        return np.dtype(_DTYPES[dtype.name])

    def device_memory_size(self, engine: Any) -> int:
        """Return the bytes of activation memory that a context of the engine needs at most."""
        if hasattr(engine, "device_memory_size_v2"):  # from TensorRT 10.1 on
            return int(engine.device_memory_size_v2)
        return int(engine.device_memory_size)

    def create_context(self, engine: Any, runtime_config: Any = None) -> Any:
        """Return an execution context without activation memory, or None where the library fails.

        The caller gives it memory. TensorRT requires that where CUDA graphs are captured and shapes change afterwards
        (NVIDIA, Developer Guide, "CUDA Graphs").
        """
        if not hasattr(self.module, "ExecutionContextAllocationStrategy"):  # TensorRT 8.6; deprecated in 10, gone in 11
            return engine.create_execution_context_without_device_memory()
        strategy = self.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if runtime_config is not None:
            runtime_config.set_execution_context_allocation_strategy(strategy)
            return engine.create_execution_context(runtime_config)
        return engine.create_execution_context(strategy)

    def set_device_memory(self, context: Any, address: int, size: int) -> None:
        """Give a context its activation memory, aligned to 256 bytes."""
        if hasattr(context, "set_device_memory"):  # from TensorRT 10.1 on; the property asserts where it is deprecated
            context.set_device_memory(address, size)
        else:
            context.device_memory = address

    def runtime_config(self, engine: Any, cached: bytes | None) -> tuple[Any, Any]:
        """Return TensorRT-RTX's configuration of contexts, and its cache of compiled kernels.

        Kernels for a new shape are compiled before their first run, not in the background: a CUDA graph that was recorded meanwhile
        would keep the slower stand-ins for good (its guide, "Working with RTX CUDA Graphs").

        Args:
            engine: TensorRT-RTX's.
            cached: a cache's content; one of another GPU, driver or version is not used.
        """
        config = engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = (
            self.module.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        cache = config.create_runtime_cache()
        if cached:
            cache.deserialize(cached)
        config.set_runtime_cache(cache)
        return config, cache

    def inspect(self, engine: Any) -> str:
        """Return what the library's inspector says about an engine's layers, as JSON.

        Where shapes are free, it gives types and formats only for the shapes of an execution context: here the profile's optimum.
        The engine's CUDA context is current.
        """
        trt = self.module
        inspector = engine.create_engine_inspector()
        context = self.create_context(engine)
        if context is not None:
            for index in range(engine.num_io_tensors):
                name = engine.get_tensor_name(index)
                if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                    context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
            inspector.execution_context = context
        found = str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        del inspector, context  # in this order
        return found

    # building

    def network_flags(self) -> int:
        """Return the flags to create a network with."""
        flags = self.module.NetworkDefinitionCreationFlag
        name = "STRONGLY_TYPED" if self.strongly_typed else "EXPLICIT_BATCH"
        return 1 << int(getattr(flags, name)) if hasattr(flags, name) else 0

    def obey_types(self, network: Any, config: Any, types: Mapping[str, str]) -> None:
        """Make a library that is not strongly typed compute each layer in the graph's type.

        Args:
            network: parsed.
            config: the builder's.
            types: by ONNX node, as TensorRT names its layers after nodes: ``fp32``, ``fp16`` or ``int8`` (a Q/DQ node).
        """
        if self.strongly_typed:
            return
        trt = self.module
        found = set(types.values())
        if "fp16" in found:
            config.set_flag(trt.BuilderFlag.FP16)
        if "int8" in found:
            config.set_flag(trt.BuilderFlag.INT8)
        if not found & {"fp16", "int8"}:
            return
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        wanted = {"fp32": trt.float32} if "int8" in found else {"fp32": trt.float32, "fp16": trt.float16}
        fixed = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            dtype = wanted.get(types.get(layer.name, ""))
            if dtype is None or layer.type in (*fixed, trt.LayerType.CAST):
                continue
            layer.precision = dtype
            for output in range(layer.num_outputs):
                layer.set_output_type(output, dtype)

    def prepare(self, config: Any) -> None:
        """Set what this project's runtime needs of an engine, whatever the user chose."""
        trt = self.module
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector then tells each layer's type
        if hasattr(
            trt.PreviewFeature, "PROFILE_SHARING_0806"
        ):  # one profile serves several contexts; always so from 10 on
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # TensorRT-RTX: what stream capture needs
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def set_workspace(self, config: Any, size: int) -> None:
        """Limit the memory that a layer may use beside its tensors, in bytes."""
        config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, size)

    def set_tf32(self, config: Any, allowed: bool) -> None:
        """Allow or forbid TF32 in FP32 layers: 10 bits of mantissa instead of 23."""
        (config.set_flag if allowed else config.clear_flag)(self.module.BuilderFlag.TF32)

    def set_optimization_level(self, config: Any, level: int) -> None:
        """Set how long the builder searches, from 0 to 5."""
        config.builder_optimization_level = level

    def set_version_compatible(self, config: Any) -> None:
        """Let later versions of the library run the engine."""
        if self.is_rtx:
            raise OptionError(
                "TensorRT-RTX has no version-compatible engines: each release reads only its own; leave --version-compatible out"
            )
        config.set_flag(self.module.BuilderFlag.VERSION_COMPATIBLE)

    def set_hardware_compatibility(self, config: Any, level: str) -> None:
        """Let other GPUs run the engine: ``ampere_plus`` or ``same_compute_capability``."""
        if self.is_rtx:
            raise OptionError("TensorRT-RTX names its GPUs with --gpu sm86,sm89,...; leave --hardware-compatible out")
        levels = self.module.HardwareCompatibilityLevel
        if not hasattr(levels, level.upper()):
            raise OptionError(f"{self.title} has no hardware compatibility {level!r}; it has {_names(levels)}")
        config.hardware_compatibility_level = getattr(levels, level.upper())

    def set_gpus(self, config: Any, gpus: Sequence[str]) -> None:
        """Set the compute capabilities (``sm86``) that an engine is built for ahead of time."""
        if not self.is_rtx:
            raise OptionError(
                f"--gpu is TensorRT-RTX's: {self.title} builds for this machine's GPU; build on the device, or pass --engine "
                "tensorrt-rtx"
            )
        known = self.module.ComputeCapability
        for name in gpus:
            if not hasattr(known, name.upper()) or not name.lower().startswith("sm"):
                raise OptionError(f"--gpu {name}: {self.title} builds for {_names(known, 'SM')}")
        config.num_compute_capabilities = len(gpus)
        for index, name in enumerate(gpus):
            config.set_compute_capability(getattr(known, name.upper()), index)

    def set_tactic_sources(self, config: Any, names: Sequence[str]) -> None:
        """Let the builder use only the named sources of kernels."""
        known = self.module.TacticSource
        for name in names:
            if not hasattr(known, name.upper()):
                raise OptionError(f"--tactic-sources {name}: {self.title} has {_names(known)}")
        config.set_tactic_sources(sum(1 << int(getattr(known, name.upper())) for name in names))

    def load_timing_cache(self, config: Any, file: Path) -> Any:
        """Use measurements of earlier builds; the file need not exist yet.

        Raises:
            OptionError: the library has none, or refuses the file.
        """
        if self.is_rtx:
            raise OptionError(
                "TensorRT-RTX does not time tactics when it builds, so it has no timing cache; leave --timing-cache out"
            )
        try:
            content = file.read_bytes() if file.exists() else b""
        except OSError as error:
            raise OptionError(f"--timing-cache {file}: {error.strerror or error}") from error
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise OptionError(
                f"--timing-cache {file}: {self.title} refuses it (another version's or GPU's, or damaged); name another file"
            )
        return cache

    @property
    def reports_progress(self) -> bool:
        """Whether a build can be followed and cancelled."""
        return hasattr(self.module, "IProgressMonitor")


def installed() -> list[str]:
    """Return the names of the libraries whose module can be found; none is imported."""
    return [name for name in LIBRARIES if find_spec(_MODULES[name]) is not None]


@lru_cache(maxsize=2)
def import_library(name: str) -> Library:
    """Import a library.

    Args:
        name: ``tensorrt`` or ``tensorrt-rtx``.

    Raises:
        BackendError: it is missing, or installed but broken.
    """
    if name not in installed():
        raise BackendError(f"{TITLES[name]} is not installed: {EXTRAS[name]}")
    try:
        module = importlib.import_module(_MODULES[name])
        version = str(module.__version__)
        module.Runtime  # noqa: B018 - missing where the bindings find no libraries
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise BackendError(
            f"{TITLES[name]} is installed but does not load ({' '.join(str(error).split()) or type(error).__name__}); install it "
            f"again: {EXTRAS[name]}"
        ) from error
    return Library(name, version, module)


def version_numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers: ``(10, 3, 0)`` for ``10.3.0.26`` and ``10.3.0``. The fourth names a build, not a release."""
    numbers = []
    for part in version.split(".")[:3]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)


def _names(enum: Any, start: str = "") -> str:
    members = getattr(enum, "__members__", {})
    return ", ".join(name.lower() for name in members if name.startswith(start))
