"""Calling cuda-bindings: a call returns a value or raises one of our errors, with any release of it and any driver.

cuda-bindings 13 asks the driver for functions by version and raises a plain ``RuntimeError`` for those that an older driver lacks
(``FunctionNotFoundError`` of its own since 12.9), and every release raises ``ValueError`` for a return code that it does not know.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mtl_deploy.runtime.errors import BackendError, DeviceLostError, DeviceMemoryError, DriverFunctionError, RunError

from . import gpu

_LOST = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        *("DEINITIALIZED", "DEVICE_UNAVAILABLE", "ECC_UNCORRECTABLE", "NVLINK_UNCORRECTABLE", "ILLEGAL_ADDRESS"),
        *("LAUNCH_TIMEOUT", "ASSERT", "HARDWARE_STACK_ERROR", "ILLEGAL_INSTRUCTION", "MISALIGNED_ADDRESS"),
        *("INVALID_ADDRESS_SPACE", "INVALID_PC", "LAUNCH_FAILED", "CONTEXT_IS_DESTROYED", "CONTAINED"),
        *("EXTERNAL_DEVICE", "TENSOR_MEMORY_LEAK"),
    )
)
"""Errors after which each further call in the context fails too (CUDA driver API, "CUresult")."""
_UNKNOWN = re.compile(r"(\d+) is not a valid CUresult")
_MISSING = re.compile(r"function \W?(\w+)\W? (?:is )?not found", re.IGNORECASE)


class Driver:
    """cuda-bindings' driver module, raising our errors.

    Args:
        module: ``cuda.bindings.driver``.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name.startswith("cu"):
            found = _guarded(found)
        self.__dict__[name] = found  # the next access does not come here
        return found


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (RuntimeError, ValueError) as error:
            translated = _translated(error)
            if translated is None:
                raise
            raise translated from error

    return call


def _translated(error: Exception) -> RunError | None:
    """Return our error for one that cuda-bindings raised itself; None where it is something else."""
    text = str(error)
    if (found := _UNKNOWN.search(text)) is not None:
        return error_of(int(found[1]))
    if (found := _MISSING.search(text)) is not None:
        return DriverFunctionError(
            f"the GPU's driver, which supports CUDA {gpu.driver_version()}, has no {found[1]}, which the installed cuda-bindings "
            "asks for; update the driver, or install the cuda-bindings of its CUDA ('cuda-bindings<13' for CUDA 12)"
        )
    return None


@lru_cache(maxsize=1)
def driver() -> Any:
    """Return cuda-bindings' driver module, as :class:`Driver`.

    Raises:
        BackendError: it is not installed.
    """
    try:
        from cuda.bindings import driver as module
    except ImportError as error:
        raise BackendError(
            f"running an engine needs cuda-bindings ({error}): pip install 'mtl-deploy[tensorrt]' or 'mtl-deploy[tensorrt-rtx]'"
        ) from error
    return Driver(module)


def check(result: tuple[Any, ...]) -> Any:
    """Return the result of a driver call, once its return code is checked.

    Raises:
        DeviceMemoryError: the memory is full.
        DeviceLostError: the context is unusable.
        RunError: anything else.
    """
    code = result[0]
    if code != 0:
        raise error_of(code)
    return result[1] if len(result) == 2 else None


def error_of(code: Any) -> RunError:
    """Return the error for a return code: cuda-bindings' member, or the bare number where it has none."""
    name = getattr(code, "name", None) or gpu.error_name(int(code))
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        return DeviceMemoryError(f"the GPU's memory is full ({name}); close other models, or use smaller batches")
    if name in _LOST:
        return DeviceLostError(
            f"the GPU's context is unusable ({name}); close its models and start the process again: CUDA "
            "does not promise that anything else works in this one"
        )
    if name == "CUDA_ERROR_NOT_INITIALIZED":  # cuInit was called, so this is a child of the process that called it
        return RunError(
            f"CUDA failed: {name}; it does not survive a fork: start processes with 'spawn', and load models in them"
        )
    return RunError(f"CUDA failed: {name}")


def elapsed_time(start: int, end: int) -> float:
    """Return the milliseconds of GPU time between two events, by the function that every driver has.

    Raises:
        RunError: the driver refuses.
    """
    found = ctypes.c_float()
    code = gpu.libcuda().cuEventElapsedTime(ctypes.byref(found), ctypes.c_void_p(start), ctypes.c_void_p(end))
    if code != 0:
        raise error_of(code)
    return found.value
