"""The processors that QEMU emulates here, and how a program is run on one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .place import CORES, Place

_BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_DOT = f"{_BASE} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Processor:
    """An emulated processor.

    Attributes:
        name: for people.
        machine: ``aarch64`` or ``x86_64``.
        key: its name on the command line, and of files.
        qemu: QEMU's name of it.
        part: of ARM's, its number in ``/proc/cpuinfo``.
        features: of ARM's, what the kernel says of it there.
    """

    name: str
    machine: str
    key: str
    qemu: str
    part: int = 0
    features: str = ""

    @property
    def sve(self) -> bool:
        """Whether it has vectors of any length."""
        return "sve" in self.features.split()

    def cpuinfo(self) -> str:
        """Return ``/proc/cpuinfo`` of such a processor: without it ONNX Runtime reads this machine's, and crashes."""
        lines = {
            "BogoMIPS": "108.00",
            "Features": self.features,
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": "0x0",
            "CPU part": f"{self.part:#05x}",
            "CPU revision": "3",
        }
        body = "".join(f"{name}\t: {value}\n" for name, value in lines.items())
        return "".join(f"processor\t: {core}\n{body}\n" for core in range(CORES))

    def command(self, place: Place, script: Path, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return the command that runs a Python script on it, and the environment.

        QEMU looks for absolute paths in its prefix first, so ``/proc/cpuinfo`` is written there: a folder of links to the root
        folder, one for each processor, so that several can run at once.
        """
        environment = dict(os.environ) | {"QEMU_CPU": self.qemu, "PYTHONPATH": _package()}
        emulator = place.emulator(self.machine)
        if self.machine != "aarch64":  # this machine's own Python
            return [emulator, sys.executable, "-s", str(script), *arguments], environment
        prefix = place.folder / "prefixes" / self.key
        (prefix / "proc").mkdir(parents=True, exist_ok=True)
        (prefix / "proc" / "cpuinfo").write_text(self.cpuinfo())
        for entry in (place.folder / "root").iterdir():
            if not (prefix / entry.name).exists():
                (prefix / entry.name).symlink_to(entry)
        environment["PYTHONPATH"] = f"{place.site}{os.pathsep}{_package()}"
        return [emulator, "-L", str(prefix), str(place.python), "-s", str(script), *arguments], environment


def _package() -> str:
    return str(Path(__file__).parents[2] / "package")


def here(script: Path, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs a Python script on this machine, not emulated, and the environment."""
    return [sys.executable, "-s", str(script), *arguments], dict(os.environ) | {"PYTHONPATH": _package()}


PROCESSORS = {
    one.key: one
    for one in (
        Processor("Cortex-A72", "aarch64", "cortex-a72", "cortex-a72", 0xD08, _BASE),
        Processor("Cortex-A76", "aarch64", "cortex-a76", "cortex-a76", 0xD0B, _DOT),
        Processor("all but SVE", "aarch64", "max", "max,sve=off", 0xD40, f"{_DOT} i8mm bf16"),
        Processor("all of ARMv8's", "aarch64", "max-sve", "max", 0xD40, f"{_DOT} sve i8mm bf16"),
        Processor("x86 without VNNI", "x86_64", "haswell", "Haswell"),
    )
}
"""ARM without integer dot products (Raspberry Pi 4), with them (Raspberry Pi 5), with matrix products, and with SVE's vectors too;
x86 with AVX2 alone."""
