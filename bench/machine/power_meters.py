"""Meters of energy and power that a machine may have: NVML for the GPU, RAPL for the processor, a Jetson's power rails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mtl_deploy.runtime.errors import NoGpuError

from .nvml import Nvml
from .sysfs import ROOT, glob, read, read_int

_TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails that measure the whole board. Where a board has none, its rails are added up."""


class Meter(Protocol):
    """Something that counts energy or reports power.

    Attributes:
        source: ``NVML``, ``RAPL`` or ``INA3221``.
        domain: what is metered.
        counts: whether :meth:`read` gives joules since some moment; False where it gives watts.
    """

    source: str
    domain: str
    counts: bool

    def read(self) -> float | None:
        """Return joules so far, or watts now; None where that fails."""
        ...


@dataclass(frozen=True)
class Meters:
    """What was found.

    Attributes:
        meters: in order of preference.
        missing: why others cannot be read, one phrase for each.
    """

    meters: tuple[Meter, ...]
    missing: tuple[str, ...]


class NvmlMeter:
    """The GPU: its counter of energy where it has one (Volta and later), otherwise its power."""

    source = "NVML"

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self.domain = nvml.name
        self.counts = nvml.joules() is not None

    def read(self) -> float | None:
        """Return joules so far, or watts now."""
        return self._nvml.joules() if self.counts else self._nvml.watts()


class RaplMeter:
    """The processor's packages, added up: cores, caches and memory controllers of the whole machine, not of one process.

    Args:
        zones: folders of ``/sys/class/powercap``, one per package. Their counters wrap around, after minutes at the earliest, and
            must be read more often than that.
    """

    source = "RAPL"
    counts = True

    def __init__(self, zones: Sequence[Path]) -> None:
        self.domain = " + ".join(read(zone / "name") or zone.name for zone in zones)
        self._zones = [(zone / "energy_uj", read_int(zone / "max_energy_range_uj") or 0) for zone in zones]
        self._last = [0 for _ in zones]
        self._joules = 0.0
        self._begun = False

    def read(self) -> float | None:
        """Return joules since the first reading."""
        now = [read_int(file) for file, _ in self._zones]
        if None in now:
            return None
        values = [value for value in now if value is not None]
        if self._begun:
            for value, last, (_, largest) in zip(values, self._last, self._zones, strict=True):
                self._joules += ((value - last) if value >= last else (value + largest + 1 - last)) / 1e6
        self._last, self._begun = values, True
        return self._joules


class RailMeter:
    """Rails of a Jetson behind INA3221 monitors.

    Args:
        rails: by label, the two files whose product is the power (millivolts and milliamperes), or one file of milliwatts.
    """

    source = "INA3221"
    counts = False

    def __init__(self, rails: dict[str, tuple[Path, ...]]) -> None:
        self.domain = " + ".join(rails)
        self._rails = list(rails.values())

    def read(self) -> float | None:
        """Return watts now."""
        total = 0.0
        for files in self._rails:
            values = [read_int(file) for file in files]
            if None in values:
                return None
            product = 1.0
            for value in values:
                product *= (value or 0) / 1000
            total += product
        return total


def find_meters(root: Path = ROOT) -> Meters:
    """Find what can be read here.

    Args:
        root: of the file system; another than ``/`` has no GPU.
    """
    meters: list[Meter] = []
    missing: list[str] = []
    if root == ROOT:
        try:
            meters.append(meter := NvmlMeter(Nvml()))
            if meter.read() is None:
                meters.remove(meter)
                missing.append("NVML: this GPU reports neither energy nor power")
        except NoGpuError as error:
            missing.append(f"NVML: {error}")
    rails = _rails(root)
    if rails:
        meters.append(RailMeter(rails))
    zones = [zone for zone in glob(root, "sys/class/powercap/intel-rapl:*") if zone.name.count(":") == 1]
    packages = [zone for zone in zones if (read(zone / "name") or "").startswith("package")]
    if packages and RaplMeter(packages).read() is not None:
        meters.append(RaplMeter(packages))
    elif packages:
        missing.append(f"RAPL: {packages[0] / 'energy_uj'} cannot be read; by default only root may read it")
    else:
        missing.append("RAPL: the kernel shows no package")
    return Meters(tuple(meters), tuple(missing))


def _rails(root: Path) -> dict[str, tuple[Path, ...]]:
    """Return the Jetson's rails to read: only that of the whole board where there is one."""
    rails: dict[str, tuple[Path, ...]] = {}
    for folder in glob(root, "sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*"):
        for channel in (1, 2, 3):  # those above 3 are sums and shunt voltages
            files = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
            label = read(folder / f"in{channel}_label")
            if label and label != "NC" and all(read_int(file) is not None for file in files):
                rails[label] = files
    for folder in glob(root, "sys/bus/i2c/drivers/ina3221*/*/iio:device*"):  # JetPack 4
        for channel in (0, 1, 2):
            file = folder / f"in_power{channel}_input"
            label = read(folder / f"rail_name_{channel}")
            if label and label != "NC" and read_int(file) is not None:
                rails[label] = (file,)
    for label in _TOTALS:
        if label in rails:
            return {label: rails[label]}
    return rails
