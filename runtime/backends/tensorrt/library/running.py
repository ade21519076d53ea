"""Running engines, in the calls of each release."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import BackendError

from .release import Release

_DTYPES = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "UINT8": "u1", "INT32": "i4", "INT64": "i8", "BOOL": "?"}


class RunsEngines(Release):
    """What the runtime asks of a library, whichever its release."""

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
