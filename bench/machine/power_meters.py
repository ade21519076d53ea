"""What can be read of a machine's energy: NVML for the GPU, RAPL for the processor, a Jetson's power rails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mtl_deploy.runtime.errors import NoGpuError

from .nvml import Nvml
from .sysfs import ROOT, glob, read, read_int

_TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails before all others: what the whole board draws. Boards without one have rails beside each other, which are added up."""


class Meter(Protocol):
    """Something that counts energy, or tells power.

    Attributes:
        source: ``NVML``, ``RAPL`` or ``INA3221``.
        domain: what is metered.
        counts: whether :meth:`read` gives joules since some time; False where it gives watts.
    """

    source: str
    domain: str
    counts: bool

    def read(self) -> float | None:
        """Return joules or watts now; None where that fails."""
        ...


@dataclass(frozen=True)
class Meters:
    """What was found.

    Attributes:
        meters: the most telling first.
        missing: why others cannot be read, a phrase each.
    """

    meters: tuple[Meter, ...]
    missing: tuple[str, ...]


class NvmlMeter:
    """The GPU: its counter where it has one (Volta and later), else its power."""

    source = "NVML"

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self.domain = nvml.name
        self.counts = nvml.joules() is not None

    def read(self) -> float | None:
        """Return joules or watts now."""
        return self._nvml.joules() if self.counts else self._nvml.watts()


class RaplMeter:
    """The processor's packages, added up: cores, caches and memory controllers of the whole machine, not of one process.

    Args:
        zones: folders of ``/sys/class/powercap``, a package each. Their counters wrap round at a value that they tell and must be
            read more often than that: after minutes at the earliest.
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
        rails: by label, the files whose product is power (millivolts, milliamperes), or one file of milliwatts.
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
                missing.append("NVML: this GPU tells neither energy nor power")
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
        missing.append(f"RAPL: {packages[0] / 'energy_uj'} cannot be read; only root may, as kernels are set up")
    else:
        missing.append("RAPL: the kernel shows no package")
    return Meters(tuple(meters), tuple(missing))


def _rails(root: Path) -> dict[str, tuple[Path, ...]]:
    """Return a Jetson's rails to meter: the board's alone where there is one."""
    rails: dict[str, tuple[Path, ...]] = {}
    for folder in glob(root, "sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*"):
        for channel in (1, 2, 3):  # the ones above are sums and voltages over shunts
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
