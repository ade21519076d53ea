"""What times depend on: the processor, and the version of each library that runs graphs on it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.backends.modes import usable_cores
from mtl_deploy.runtime.backends.onnxruntime.backend import installed_version as onnxruntime_version
from mtl_deploy.runtime.backends.openvino.library import installed_version as openvino_version

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
"""By backend that runs graphs, its name for people."""
ROOT = Path("/")
_NAMES = ("model name", "Model", "CPU implementer", "CPU part")  # x86's and boards', then ARM's numbers
_INSTRUCTIONS = ("flags", "Features")  # x86's, ARM's


@dataclass(frozen=True)
class Processor:
    """A kind of processor, and how much of it there is.

    Attributes:
        name: as the system calls it; on ARM its implementer and parts, by number.
        machine: its architecture, such as ``x86_64``.
        cores: that this process may use.
        instructions: the first digits of a SHA-256 of its instruction sets' names; empty where the system does not list them.
    """

    name: str
    machine: str
    cores: int
    instructions: str

    def to_dict(self) -> dict[str, Any]:
        """Return its part of the file."""
        return asdict(self)

    def __str__(self) -> str:
        """For people."""
        return f"{self.name}, {self.cores} core{'s' if self.cores > 1 else ''}"


def processor(root: Path = ROOT) -> Processor:
    """Return what runs this process.

    Args:
        root: of the file system that is read.
    """
    name, instructions = _of_this_one() if root == ROOT else _described(root)
    return Processor(name, platform.machine(), usable_cores(), instructions)


@lru_cache(maxsize=1)
def _of_this_one() -> tuple[str, str]:
    return _described(ROOT)


def _described(root: Path) -> tuple[str, str]:
    """Return the name and the digest of the instructions; a line for each of hundreds of cores takes a while."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
    words = sorted({word for key, value in fields if key in _INSTRUCTIONS for word in value.split()})
    name = next((", ".join(_unique(fields, key)) for key in _NAMES[:2] if _unique(fields, key)), "")
    if not name:
        name = " ".join(f"{key} {' '.join(found)}" for key in _NAMES[2:] if (found := _unique(fields, key)))
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:16] if words else ""
    return name or platform.processor() or "unknown", digest


def _unique(fields: list[tuple[str, str]], key: str) -> list[str]:
    return sorted({value for name, value in fields if name == key})


def libraries(backends: Collection[str] = tuple(TITLES)) -> dict[str, str]:
    """Return the versions of libraries that are installed here and run graphs, by backend.

    Args:
        backends: those to look at. None is imported for it, where pip installed it.
    """
    versions = {"onnxruntime": onnxruntime_version, "openvino": openvino_version}
    return {name: found for name in backends if (found := versions[name]()) is not None}
