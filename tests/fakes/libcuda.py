"""The CUDA driver as ctypes sees it: what :mod:`~mtl_deploy.runtime.cuda.gpu` asks."""

from __future__ import annotations

from typing import Any

from tests.fakes.objects import Code


class SimulatedLibcuda:
    """The driver as ctypes sees it: what :mod:`~mtl_deploy.runtime.cuda.gpu` asks."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self.devices, self.name, self.capability = 1, "Simulated GPU", (8, 7)
        self.code = 0

    @property
    def version(self) -> int:
        """The CUDA version that the driver supports."""
        found: int = self.cuda.version
        return found

    @version.setter
    def version(self, version: int) -> None:
        self.cuda.version = version

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuGetErrorName(self, code: int, name: Any) -> int:
        try:
            name._obj.value = Code(code).name.encode()
        except ValueError:
            return 1
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return 0

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = self.name.encode()
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:
        size._obj.value = 8 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self.version
        return 0

    def cuEventElapsedTime(self, ms: Any, start: Any, end: Any) -> int:
        ms._obj.value = self.cuda.elapsed(start.value, end.value)
        return 0
