"""A release of TensorRT: its name and version, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LIBRARIES = ("tensorrt", "tensorrt-rtx")  # in order of preference
TITLES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class Release:
    """An installed release of a library.

    Attributes:
        name: ``tensorrt`` or ``tensorrt-rtx``.
        version: its own, such as ``10.3.0``.
        module: its Python module.
    """

    name: str
    version: str
    module: Any

    @property
    def title(self) -> str:
        """For people: ``TensorRT-RTX 1.7.1.116``."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it compiles for the GPU only when the engine is loaded, and builds without one."""
        return self.name == "tensorrt-rtx"

    @property
    def strongly_typed(self) -> bool:
        """Whether it computes with a graph's types as they are."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or self.major >= 10

    @property
    def major(self) -> int:
        """The version's first number."""
        return version_numbers(self.version)[0]


def version_numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers: ``(10, 3, 0)`` for ``10.3.0.26`` and ``10.3.0``. The fourth names a build, not a release."""
    numbers = []
    for part in version.split(".")[:3]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)
