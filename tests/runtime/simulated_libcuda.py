"""The CUDA driver as ctypes sees it: what :mod:`~mtl_deploy.runtime.gpu` asks."""

from __future__ import annotations

from typing import Any

from .simulated_objects import Code


class SimulatedLibcuda:
    """The driver as ctypes sees it: what :mod:`~mtl_deploy.runtime.gpu` asks."""

    def __init__(self, devices: int = 1, name: str = "Simulated GPU", capability: tuple[int, int] = (8, 7)) -> None:
        self.devices, self.name, self.capability = devices, name, capability
        self.code = 0
        self.version = 13000

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
