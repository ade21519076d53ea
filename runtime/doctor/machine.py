"""The machine: system, processor, memory, driver, GPUs, and on a Jetson its release. What is not known is None."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.cuda.gpu import driver_version, find_gpu
from mtl_deploy.runtime.errors import NoGpuError

ROOT = Path("/")
_MOST_GPUS = 64
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_MODULE_LOADING", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS")
_PACKAGES = ("nvidia-jetpack", "nvidia-l4t-core")  # of Debian, on a Jetson


def machine(root: Path = ROOT) -> dict[str, Any]:
    """Describe the machine without names of hosts, users or folders.

    Args:
        root: of the file system that is read.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return {
        "system": platform.platform(),
        "distribution": _distribution(root),
        "architecture": platform.machine(),
        "processor": _processor(root),
        "board": _board(root),
        "usable_cores": cores,
        "memory_bytes": None if memory is None else 1024 * int(memory[1]),
        "container": _is_container(root),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "virtual_environment": sys.prefix != sys.base_prefix,
        "variables_set": [name for name in _VARIABLES if os.environ.get(name)],
        "jetson": _jetson(root),
        "driver": _driver(root),
        "gpus": _gpus(),
    }


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").replace("\0", "")
    except (OSError, ValueError):
        return ""


def _distribution(root: Path) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', _text(root / "etc/os-release"), re.MULTILINE)
    return None if found is None else found[1]


def _processor(root: Path) -> str | None:
    found = re.search(r"^(?:model name|Model)\s*: *(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return platform.processor() or None if found is None else found[1].strip()


def _board(root: Path) -> str | None:
    return _text(root / "proc/device-tree/model").strip() or None


def _is_container(root: Path) -> bool:
    return (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()


def _jetson(root: Path) -> dict[str, str | None] | None:
    """Return a Jetson's Linux release, and the version of JetPack's package, which a minimal installation does not have."""
    first = next(iter(_text(root / "etc/nv_tegra_release").splitlines()), "")
    packages = _packages(root)
    release = re.search(r"R(\d+)[^,]*, REVISION: ([\d.]+)", first)
    l4t = f"{release[1]}.{release[2]}" if release else packages.get("nvidia-l4t-core")
    if l4t is None and "nvidia-jetpack" not in packages:
        return None
    return {"l4t": l4t, "jetpack": packages.get("nvidia-jetpack")}


def _packages(root: Path) -> dict[str, str]:
    """Return the versions of JetPack's packages, as Debian's package manager notes them."""
    found = {}
    for block in _text(root / "var/lib/dpkg/status").split("\n\n"):
        name = re.match(r"Package: (\S+)", block)
        version = re.search(r"^Version: (\S+)", block, re.MULTILINE)
        if name and version and name[1] in _PACKAGES and re.search(r"^Status: .* installed$", block, re.MULTILINE):
            found[name[1]] = version[1]
    return found


def _driver(root: Path) -> dict[str, str | None]:
    """Return the kernel module's version, the CUDA version that the driver supports, and why there is none."""
    module = re.search(r"Kernel Module\s+(?:for \S+\s+)?(\d[\d.]*)", _text(root / "proc/driver/nvidia/version"))
    try:
        cuda, fault = driver_version(), None
    except NoGpuError as error:
        cuda, fault = None, str(error)
    return {"version": None if module is None else module[1], "cuda": cuda, "fault": fault}


def _gpus() -> dict[str, Any]:
    """Return the GPUs that CUDA can use, and why there are no more where there are none."""
    found: list[dict[str, Any]] = []
    fault = None
    for index in range(_MOST_GPUS):
        try:
            one = find_gpu(index)
        except NoGpuError as error:
            fault = None if found else str(error)
            break
        found.append({"index": index, "name": one.name, "compute_capability": one.sm, "memory_bytes": one.memory_bytes})
    return {"found": found, "fault": fault}
