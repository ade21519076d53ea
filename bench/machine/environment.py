"""Where a measurement was made, and whether the machine was quiet."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from mtl_deploy import __version__
from mtl_deploy.runtime.cuda.gpu import find_gpu
from mtl_deploy.runtime.errors import NoGpuError

from .sysfs import ROOT, glob, read, read_int, read_table
from .throttling import after_warnings, cgroup_folders, counts_others, snapshot

__all__ = ["after_warnings", "environment", "snapshot", "usable_cores", "warnings"]

_LIBRARIES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "tensorrt_rtx",
    "cuda-bindings",
    "openvino",
    "torch",
)
_BUSY = 0.25  # load per core, before the measurement adds its own
_LITTLE_MEMORY = 0.1  # share of all memory; little is free where less than that is available
_NEVER_LIMITED = 1 << 60  # version 1 of control groups writes a number for no limit


def environment(root: Path = ROOT) -> dict[str, Any]:
    """Describe the machine as far as the system reports it: what is not known is None.

    Args:
        root: of the file system that is read.
    """
    installed = {distribution.name.lower(): distribution.version for distribution in distributions()}
    governors = _of_all_cores(root, "scaling_governor")
    memory = read_table(root / "proc/meminfo")
    return {
        "machine": platform.machine(),
        "model": read(root / "proc/device-tree/model") or read(root / "sys/class/dmi/id/product_name"),
        "system": platform.platform(),
        "processor": _processor(root),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "gpu": _gpu(),
        "governor": read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "governors": governors,
        "frequency_driver": read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
        "frequency_range_mhz": _frequency_range(root),
        "boost": _boost(root),
        "smt": _smt(root),
        "power_source": _power_source(root),
        "jetson": _jetson(root),
        "virtual_machine": _is_virtual(root),
        "container_cores": container_cores(root),
        "memory_bytes": _bytes(memory.get("MemTotal")),
        "memory_available_bytes": _bytes(memory.get("MemAvailable")),
        "memory_limit_bytes": _memory_limit(root),
        "swap_bytes": _bytes(memory.get("SwapTotal")),
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


def warnings(described: Mapping[str, Any], root: Path = ROOT) -> list[str]:
    """Return a warning for each sign that the machine was not quiet, or may not have been.

    The load average of the last minute counts the command's own start as well. So it is looked at only where the processor time
    of other processes cannot be told; where it can, :func:`after_warnings` says what they took.

    Args:
        described: see :func:`environment`; what is None there gives no warning.
        root: of the file system that it was read from.
    """
    found = []
    load, cores = described["load_before"], described["usable_cores"]
    if load is not None and load > _BUSY * cores and not counts_others(root):
        found.append(f"the machine was busy before the measurement (load {load:.1f} on {cores} cores)")
    governors: Mapping[str, int] = described.get("governors") or {}
    if len(governors) > 1:
        counts = ", ".join(f"{name} on {count}" for name, count in governors.items())
        found.append(f"cores have different governors ({counts}): the clock depends on which core a thread runs on")
    elif described["governor"] not in (None, "performance"):
        found.append(f"the clock may vary: governor {described['governor']!r}, 'performance' holds it")
    limit = described.get("container_cores")
    if limit is not None and limit < cores:
        allowed = f"the container may use the processor time of {limit:g} of {cores} cores and is stopped beyond it"
        found.append(f"{allowed}: use --threads {max(1, int(limit))}")
    if described.get("power_source") == "battery":
        found.append("the machine runs on battery, where clocks are often lower")
    total, available = described.get("memory_bytes"), described.get("memory_available_bytes")
    if total and available is not None and available < _LITTLE_MEMORY * total:
        found.append(f"little memory was free before the measurement ({available / 1e6:.0f} of {total / 1e6:.0f} MB)")
    return found


def container_cores(root: Path = ROOT) -> float | None:
    """Return the processor time that control groups allow this process, in cores: the tightest limit; None where there is none."""
    limits = []
    for folder in cgroup_folders(root):
        quota = (read(folder / "cpu.max") or "").split()  # version 2
        if not quota:
            period = read_int(folder / "cpu.cfs_period_us")
            quota = [str(read_int(folder / "cpu.cfs_quota_us") or -1), str(period or 0)]
        if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]) > 0:
            limits.append(int(quota[0]) / int(quota[1]))
    return min(limits, default=None)


def _memory_limit(root: Path) -> int | None:
    limits = [
        limit
        for folder in cgroup_folders(root, "memory")
        for word in ("memory.max", "memory.limit_in_bytes")
        if (limit := read_int(folder / word)) is not None and limit < _NEVER_LIMITED
    ]
    return min(limits, default=None)


def _processor(root: Path) -> str | None:
    text = read(root / "proc/cpuinfo") or ""
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


def _of_all_cores(root: Path, word: str) -> dict[str, int] | None:
    """Return how many cores have each value of a ``cpufreq`` file."""
    files = glob(root, f"sys/devices/system/cpu/cpu[0-9]*/cpufreq/{word}")
    values = [value for file in files if (value := read(file)) is not None]
    return dict(Counter(values)) or None


def _frequency_range(root: Path) -> list[float] | None:
    """Return the lowest and the highest clock that the governors may choose, over all cores."""
    lows, highs = (_of_all_cores(root, f"scaling_{end}_freq") or {} for end in ("min", "max"))
    numbers: list[list[float]] = [[int(v) / 1000 for v in values if v.isdigit()] for values in (lows, highs)]
    return [min(numbers[0]), max(numbers[1])] if all(numbers) else None


def _boost(root: Path) -> bool | None:
    """Return whether the clock may rise above its base for a while."""
    boost = read_int(root / "sys/devices/system/cpu/cpufreq/boost")
    if boost is not None:
        return boost == 1
    no_turbo = read_int(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    return None if no_turbo is None else no_turbo == 0


def _smt(root: Path) -> bool | None:
    """Return whether cores run several threads each."""
    active = read_int(root / "sys/devices/system/cpu/smt/active")
    return None if active is None else active == 1


def _power_source(root: Path) -> str | None:
    """Return ``mains`` or ``battery``; None where the machine has no battery or does not report it."""
    supplies: Sequence[Path] = list(glob(root, "sys/class/power_supply/*"))
    mains = [read_int(one / "online") for one in supplies if read(one / "type") == "Mains"]
    if any(mains):
        return "mains"
    batteries = [one for one in supplies if read(one / "type") == "Battery" and read(one / "scope") != "Device"]
    return "battery" if any(read(one / "status") == "Discharging" for one in batteries) else None


def _jetson(root: Path) -> dict[str, str | None] | None:
    """Return a Jetson's release and power mode."""
    release = read(root / "etc/nv_tegra_release")
    if release is None:
        return None
    mode = read(root / "var/lib/nvpmodel/status")  # such as pmode:0002
    return {"release": release.splitlines()[0].lstrip("# "), "power_mode": mode}


def _is_virtual(root: Path) -> bool | None:
    """Return whether this is a virtual machine, by the flag that hypervisors set (x86)."""
    lines = (read(root / "proc/cpuinfo") or "").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else "hypervisor" in flags


def _bytes(kibibytes: int | None) -> int | None:
    return None if kibibytes is None else 1024 * kibibytes
