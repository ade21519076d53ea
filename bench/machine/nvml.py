"""What NVIDIA's management library reports about the GPU, through nvidia-ml-py (``pynvml``) where that is installed.

Imported when first needed: the benchmark works without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from mtl_deploy.runtime.cuda.gpu import find_gpu
from mtl_deploy.runtime.errors import NoGpuError

_SLOWING = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""Bits of ``nvmlClocksEventReasons*`` that slow the GPU down; the others mean that it is idle, or are the user's settings."""
_POLICIES = {"power": 0, "thermal": 1}  # NVML_PERF_POLICY_*


class Nvml:
    """The GPU that CUDA calls number 0, as NVML knows it.

    Raises:
        NoGpuError: there is no such GPU, no nvidia-ml-py, or NVML and CUDA mean different GPUs; the message says which.
    """

    def __init__(self) -> None:
        gpu = find_gpu()
        try:
            import pynvml
        except ImportError:
            raise NoGpuError("nvidia-ml-py is not installed (pip install 'mtl-deploy[energy]')") from None
        self._library: Any = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = self._find(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
            name = pynvml.nvmlDeviceGetName(self._handle)
        except pynvml.NVMLError as error:
            raise NoGpuError(f"NVML does not answer ({error})") from error
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        if self.name != gpu.name:  # NVML counts by PCI bus, CUDA by speed
            raise NoGpuError(f"NVML's first GPU is {self.name}, CUDA's is {gpu.name}; set CUDA_DEVICE_ORDER=PCI_BUS_ID")

    def _find(self, visible: str) -> Any:
        """Return the handle of the first of ``CUDA_VISIBLE_DEVICES``."""
        first = visible.split(",")[0].strip()
        if first.startswith("GPU-"):
            return self._library.nvmlDeviceGetHandleByUUID(first)
        return self._library.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)

    def joules(self) -> float | None:
        """Return the GPU's energy since the driver was loaded; None where it does not count (before Volta, and on a Jetson)."""
        found = self._ask(lambda library, handle: library.nvmlDeviceGetTotalEnergyConsumption(handle))
        return None if found is None else float(found) / 1000

    def watts(self) -> float | None:
        """Return the GPU's power; None where it does not report it."""
        found = self._ask(lambda library, handle: library.nvmlDeviceGetPowerUsage(handle))
        return None if found is None else float(found) / 1000

    def state(self) -> dict[str, Any]:
        """Return temperature in degrees Celsius, clock in MHz, what slows it down now, and for how many seconds each limit has."""
        reasons = self._reasons()
        return {
            "temperature_c": self._ask(lambda library, handle: library.nvmlDeviceGetTemperature(handle, 0)),
            "clock_mhz": self._ask(lambda library, handle: library.nvmlDeviceGetClockInfo(handle, 1)),  # SM
            "slowed_by": None if reasons is None else [word for bit, word in _SLOWING.items() if reasons & bit],
            "slowed_s": {word: self._violation(policy) for word, policy in _POLICIES.items()},
        }

    def _reasons(self) -> int | None:
        found = self._ask(lambda library, handle: library.nvmlDeviceGetCurrentClocksEventReasons(handle))
        if found is None:  # its name before driver 535
            found = self._ask(lambda library, handle: library.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return None if found is None else int(found)

    def _violation(self, policy: int) -> float | None:
        found = self._ask(lambda library, handle: library.nvmlDeviceGetViolationStatus(handle, policy).violationTime)
        return None if found is None else float(found) / 1e9

    def _ask(self, question: Callable[[Any, Any], Any]) -> Any:
        """Return an answer; None where this GPU, driver or release of nvidia-ml-py has none."""
        try:
            return question(self._library, self._handle)
        except (self._library.NVMLError, AttributeError):
            return None


def gpu_state() -> dict[str, Any] | None:
    """Return the GPU's :meth:`Nvml.state`; None where it cannot be asked."""
    try:
        return Nvml().state()
    except NoGpuError:
        return None
