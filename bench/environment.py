"""Where a measurement was made, and whether the machine was quiet."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from mtl_deploy import __version__
from mtl_deploy.runtime.errors import NoGpuError
from mtl_deploy.runtime.gpu import find_gpu

_LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "tensorrt_rtx", "cuda-bindings")
_BUSY = 0.25  # load a core, before we add ours


def environment() -> dict[str, Any]:
    """Describe the machine, as far as the system tells: what is not known is None."""
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "gpu": _gpu(),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load_before": _load(),
        "python": platform.python_version(),
        "mtl_deploy": __version__,
        "libraries": {name: installed[name] for name in _LIBRARIES if name in installed},
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def warnings(described: dict[str, Any]) -> list[str]:
    """Say what speaks against a quiet machine."""
    found = []
    load, cores = described["load_before"], described["usable_cores"]
    if load is not None and load > _BUSY * cores:
        found.append(f"the machine was busy before the measurement (load {load:.1f} on {cores} cores)")
    if described["governor"] not in (None, "performance"):
        found.append(f"the clock may vary: governor {described['governor']!r}, 'performance' holds it")
    return found


def _processor() -> str | None:
    text = _read(Path("/proc/cpuinfo")) or ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or None


def _gpu() -> dict[str, Any] | None:
    try:
        return asdict(find_gpu())
    except NoGpuError:
        return None


def _load() -> float | None:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
