"""What slows a machine down during a measurement: heat, power, container limits, other work; read before and after."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .nvml import gpu_state
from .sysfs import ROOT, glob, read, read_int, read_table

Snapshot = Mapping[str, Any]

_STOLEN = 0.01  # of the machine's time, taken by the hypervisor
_OTHERS = 0.1  # of the machine's time, used by other processes
_LEAST_S = 2.0  # processor time below which shares of it mean nothing: the kernel counts in ticks
_FELL = 0.95  # the clock after, over before
_NEAR_C = 5.0  # below the temperature from which the system throttles
_RASPBERRY_PI = {0: "low voltage", 1: "a capped clock", 2: "throttling", 3: "the soft temperature limit"}
"""Bits of the firmware's ``get_throttled``; 16 bits higher: at some time since the board started."""


def snapshot(root: Path = ROOT) -> dict[str, Any]:
    """Read what may change during a measurement; what is not known is None.

    Args:
        root: of the file system; another than ``/`` has no GPU and no commands.
    """
    return {
        "load": _load(root),
        "clock_mhz": current_clock_mhz(root),
        "temperatures_c": temperatures_c(root),
        "throttled": _throttle_counts(root),
        "raspberry_pi": _raspberry_pi(root),
        "gpu": gpu_state() if root == ROOT else None,
        "cgroup": _cgroup(root),
        "processor_s": _processor_seconds(root),
        "memory_available_bytes": _kibibytes(read_table(root / "proc/meminfo").get("MemAvailable")),
        "swapped_pages": read_table(root / "proc/vmstat").get("pswpin"),
    }


def current_clock_mhz(root: Path) -> dict[str, float] | None:
    """Return the lowest and the highest clock of the cores at this moment."""
    files = glob(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [khz / 1000 for file in files if (khz := read_int(file)) is not None]
    if not clocks:
        lines = (read(root / "proc/cpuinfo") or "").splitlines()
        listed = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu MHz")]
        clocks = [float(text) for text in listed if text.replace(".", "", 1).isdigit()]
    return {"lowest": min(clocks), "highest": max(clocks)} if clocks else None


def temperatures_c(root: Path) -> dict[str, dict[str, float | None]] | None:
    """Return degrees Celsius by sensor, and where it is known the temperature at which the system slows down or warns."""
    found: dict[str, dict[str, float | None]] = {}
    for zone in glob(root, "sys/class/thermal/thermal_zone*"):
        if (value := read_int(zone / "temp")) is not None and value > 0:
            found[f"{read(zone / 'type') or 'zone'} ({zone.name})"] = {"now": value / 1000, "limit": _trip(zone)}
    for file in glob(root, "sys/class/hwmon/hwmon*/temp*_input"):
        if (value := read_int(file)) is not None and value > 0:
            stem = file.name.removesuffix("_input")
            chip = read(file.parent / "name") or file.parent.name
            label = read(file.parent / f"{stem}_label") or stem
            limit = read_int(file.parent / f"{stem}_crit") or read_int(file.parent / f"{stem}_max")
            found[f"{chip} {label} ({file.parent.name})"] = {"now": value / 1000, "limit": limit and limit / 1000}
    return found or None


def _trip(zone: Path) -> float | None:
    """Return the lowest trip point at which the machine slows down or stops."""
    limits = [
        read_int(zone / file.name.replace("_type", "_temp"))
        for file in glob(zone, "trip_point_*_type")
        if read(file) in ("passive", "hot", "critical")
    ]
    return min((limit / 1000 for limit in limits if limit and limit > 0), default=None)


def _load(root: Path) -> float | None:
    words = (read(root / "proc/loadavg") or "").split()
    try:
        return float(words[0]) if words else None
    except ValueError:
        return None


def _throttle_counts(root: Path) -> int | None:
    """Return how often cores and packages throttled since the machine started (x86)."""
    files = glob(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [count for file in files if (count := read_int(file)) is not None]
    return sum(counts) if counts else None


def _raspberry_pi(root: Path) -> int | None:
    """Return a Raspberry Pi's bits for low voltage and throttling."""
    text = read(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if text is None and root == ROOT and (command := shutil.which("vcgencmd")):
        try:
            result = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        text = result.stdout.strip().partition("=")[2]
    try:
        return int(text, 16) if text else None
    except ValueError:
        return None


def cgroup_folders(root: Path, controller: str = "cpu") -> list[Path]:
    """Return the folders of this process's control groups, the innermost first; version 2, or a controller of version 1."""
    found: list[Path] = []
    for line in (read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, inner = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / controllers if controllers else root / "sys/fs/cgroup"
        folder = base / inner.lstrip("/") if ".." not in inner else base
        found += [folder, *(parent for parent in folder.parents if base in (parent, *parent.parents))]
    return found


def _cgroup(root: Path) -> dict[str, int] | None:
    """Return in how many periods the container's processor limit stopped it, and of how many."""
    for folder in cgroup_folders(root):
        stat = read_table(folder / "cpu.stat")
        if "nr_throttled" in stat:
            return {"periods": stat.get("nr_periods", 0), "throttled": stat["nr_throttled"]}
    return None


def _processor_seconds(root: Path) -> dict[str, float] | None:
    """Return the machine's processor time since it started, over all cores, and that of this process and those that it started."""
    words = (read(root / "proc/stat") or "").splitlines()[:1]
    values = (
        [int(word) for word in words[0].split()[1:9] if word.isdigit()] if words and words[0].startswith("cpu ") else []
    )
    if len(values) < 8:
        return None
    user, nice, system, idle, wait, interrupts, soft, stolen = (value / _ticks() for value in values)
    busy = user + nice + system + interrupts + soft
    return {"all": busy + idle + wait + stolen, "busy": busy, "stolen": stolen, "own": _own_seconds(root)}


def _own_seconds(root: Path) -> float:
    """Return the processor time of this process and of its descendants, those included that have ended."""
    parents, seconds = {}, {}
    for file in glob(root, "proc/[0-9]*/stat"):
        words = (read(file) or "").rpartition(")")[2].split()  # a name may contain blanks
        if len(words) > 14 and all(word.isdigit() for word in (words[1], *words[11:15])):
            parents[int(file.parent.name)] = int(words[1])
            seconds[int(file.parent.name)] = sum(map(int, words[11:15])) / _ticks()
    total, level = 0.0, {os.getpid()}
    while level:
        total += sum(seconds.get(number, 0.0) for number in level)
        level = {number for number, parent in parents.items() if parent in level}
    return total


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _kibibytes(value: int | None) -> int | None:
    return None if value is None else 1024 * value


def counts_others(root: Path = ROOT) -> bool:
    """Return whether the processor time of other processes can be told, by which :func:`after_warnings` calls a machine busy."""
    return _processor_seconds(root) is not None


def after_warnings(before: Snapshot, after: Snapshot) -> list[str]:
    """Return a warning for each thing between two snapshots that makes the figures measured there doubtful."""
    found = [*_heat(before, after), *_limits(before, after)]
    span = _difference(before.get("processor_s"), after.get("processor_s"))
    if span and span["all"] > _LEAST_S:
        if (stolen := span["stolen"] / span["all"]) > _STOLEN:
            found.append(f"the hypervisor took {100 * stolen:.0f} % of the processor's time for other machines")
        others = (span["busy"] - span["own"]) / span["all"]
        if others > _OTHERS:
            found.append(f"other processes took {100 * others:.0f} % of the processor's time during the measurement")
    if (swapped := _rise(before.get("swapped_pages"), after.get("swapped_pages"))) > 0:
        found.append(f"the machine read {swapped} pages back from swap: it has too little memory")
    return found


def _heat(before: Snapshot, after: Snapshot) -> list[str]:
    found = []
    if (times := _rise(before.get("throttled"), after.get("throttled"))) > 0:
        found.append(f"the processor throttled {times} times for heat during the measurement")
    bits = after.get("raspberry_pi") or 0
    now = [word for bit, word in _RASPBERRY_PI.items() if bits >> bit & 1]
    fresh = bits & ~(before.get("raspberry_pi") or 0)
    now += [word for bit, word in _RASPBERRY_PI.items() if fresh >> (16 + bit) & 1 and word not in now]
    if now:
        found.append(f"the Raspberry Pi reports {', '.join(now)}")
    clocks = [one.get("clock_mhz") for one in (before, after)]
    if clocks[0] and clocks[1] and clocks[1]["highest"] < _FELL * clocks[0]["highest"]:
        was, became = clocks[0]["highest"], clocks[1]["highest"]
        found.append(f"the processor's clock fell from {was:.0f} to {became:.0f} MHz during the measurement")
    for name, sensor in (after.get("temperatures_c") or {}).items():
        if sensor["limit"] is not None and sensor["now"] > sensor["limit"] - _NEAR_C:
            found.append(f"{name} is at {sensor['now']:.0f} °C, its limit is {sensor['limit']:.0f} °C")
    return found


def _limits(before: Snapshot, after: Snapshot) -> list[str]:
    found = []
    periods = _difference(before.get("cgroup"), after.get("cgroup"))
    if periods and periods["throttled"] > 0:
        times = f"{periods['throttled']:.0f} of {periods['periods']:.0f} periods"
        found.append(f"the container's processor limit stopped it in {times}; use fewer --threads, or raise the limit")
    gpu, was = after.get("gpu"), before.get("gpu")
    if gpu:
        reasons = list(gpu["slowed_by"] or [])
        for word, seconds in gpu["slowed_s"].items():
            if was and _rise((was["slowed_s"] or {}).get(word), seconds) > 0:
                reasons.append(f"{word} limit for {_rise(was['slowed_s'].get(word), seconds):.1f} s")
        if reasons:
            found.append(f"the GPU was slowed down: {', '.join(reasons)}")
    return found


def _rise(before: Any, after: Any) -> Any:
    return 0 if before is None or after is None else after - before


def _difference(before: Mapping[str, float] | None, after: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if not before or not after else {word: after[word] - before[word] for word in after}
