"""What the CUDA driver says about the GPU, asked with the standard library only.

So a machine without a driver, or without cuda-bindings, is recognised before anything heavy is imported. Work on the GPU goes
through :mod:`~mtl_deploy.runtime.cuda.driver`.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache

from mtl_deploy.runtime.errors import NoGpuError

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_ATTRIBUTES = {"major": 75, "minor": 76}  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, of cuda.h


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the CUDA driver describes it.

    Attributes:
        index: its CUDA number.
        name: the product's.
        compute_capability: major and minor, such as ``(8, 7)``.
        memory_bytes: of the device; on a Jetson it is shared with the processor.
        driver: the CUDA version that the driver supports, such as ``13.0``.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    driver: str

    @property
    def sm(self) -> str:
        """The compute capability as NVIDIA writes it: ``8.7``."""
        return "{}.{}".format(*self.compute_capability)


@lru_cache(maxsize=8)
def find_gpu(index: int = 0) -> Gpu:
    """Describe a GPU.

    Args:
        index: CUDA's number; ``CUDA_VISIBLE_DEVICES`` renumbers.

    Raises:
        NoGpuError: there is no driver, or no such device; the message is the reason.
    """
    driver = libcuda()
    if (code := driver.cuInit(0)) == _NO_DEVICE:
        raise NoGpuError("no CUDA device")
    if code != 0:
        raise NoGpuError(f"the CUDA driver does not start ({error_name(code)})")
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        raise NoGpuError("no CUDA device")
    if not 0 <= index < count.value:
        raise NoGpuError(f"no CUDA device {index}; there are {count.value}, counted from 0")
    device = ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t(0)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    values = {}
    for word, attribute in _ATTRIBUTES.items():
        value = ctypes.c_int(0)
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        values[word] = value.value
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=(values["major"], values["minor"]),
        memory_bytes=memory.value,
        driver=driver_version(),
    )


def has_gpu() -> bool:
    """Return whether CUDA can use a GPU here."""
    try:
        find_gpu()
    except NoGpuError:
        return False
    return True


def driver_version() -> str:
    """Return the CUDA version that the driver supports, such as ``13.0``.

    Raises:
        NoGpuError: there is no driver.
    """
    version = ctypes.c_int(0)
    libcuda().cuDriverGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def error_name(code: int) -> str:
    """Return the driver's name of a return code, such as ``CUDA_ERROR_OUT_OF_MEMORY``; ``error 12345`` where it has none.

    Raises:
        NoGpuError: there is no driver.
    """
    name = ctypes.c_char_p()
    if libcuda().cuGetErrorName(code, ctypes.byref(name)) != 0 or name.value is None:
        return f"error {code}"
    return name.value.decode(errors="replace")


def libcuda() -> ctypes.CDLL:
    """Return the CUDA driver's library.

    Raises:
        NoGpuError: there is no driver.
    """
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        raise NoGpuError("no CUDA driver") from None
