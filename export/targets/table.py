"""The targets: devices and releases of TensorRT, read from ``targets.json`` beside this module.

Each line of the file is a target: ``name``, ``library``, ``version``, ``reads`` (the TensorRT release whose operators and types it
reads), ``opset`` (the highest that it is documented to read) and ``opset_by`` (what says so), ``gpu`` (of devices, with the compute
capability), ``released`` (year and month, or null where no source says it) and ``sources``. ``read`` is the day on which the
sources were last read. docs/targets.md has the same table, and a test holds both together.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mtl_deploy.runtime.errors import OptionError

from .operators import Version

FILE = Path(__file__).with_name("targets.json")


@dataclass(frozen=True)
class Target:
    """The software of a device, or a release of a library.

    Attributes:
        name: what ``--check-target`` takes.
        library: ``tensorrt`` or ``tensorrt-rtx``.
        version: the library's.
        opset: the highest that the library is documented to read.
        gpu: of devices, with their compute capability.
        rules: the TensorRT version whose operators and types it reads.
    """

    name: str
    library: Literal["tensorrt", "tensorrt-rtx"]
    version: str
    opset: int
    gpu: str = ""
    rules: Version = (0, 0)

    @property
    def title(self) -> str:
        """The library's name and version, for people."""
        return f"{'TensorRT' if self.library == 'tensorrt' else 'TensorRT-RTX'} {self.version}"


def _target(line: Mapping[str, Any]) -> Target:
    major, minor = map(int, line["reads"].split("."))
    return Target(line["name"], line["library"], line["version"], line["opset"], line["gpu"], (major, minor))


TARGETS: Mapping[str, Target] = {
    line["name"]: _target(line) for line in json.loads(FILE.read_text(encoding="utf-8"))["targets"]
}
"""All targets by name."""


def find_target(name: str) -> Target:
    """Return the target of that name.

    Raises:
        OptionError: there is none; the message lists those that are known.
    """
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(name.lower(), TARGETS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise OptionError(f"no target is called {name!r}; {hint}the targets are {', '.join(TARGETS)}")
