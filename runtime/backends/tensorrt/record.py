"""What a bundle says about an engine, and whether the engine fits this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_deploy.runtime.bundle.schema import ENGINE
from mtl_deploy.runtime.cuda.gpu import Gpu, find_gpu
from mtl_deploy.runtime.errors import BackendError, BundleError, NoGpuError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError

from .library import TITLES, Library, Release, import_library, version_numbers
from .start import require_driver

HARDWARE_COMPATIBILITY = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True)
class EngineRecord:
    """What a bundle's manifest says about an engine, beside what it says about every artifact.

    Attributes:
        library: the one that built it: ``tensorrt`` or ``tensorrt-rtx``.
        version: the library's.
        compute_capabilities: of the GPUs that it was built for (``8.7``); empty: TensorRT-RTX's default, Ampere and later.
        gpu: the product that it was built on; None where it was built without one.
        driver: CUDA version of the driver that it was built with; None where it was built without a GPU.
        hardware_compatibility: ``none``, ``ampere_plus`` or ``same_compute_capability``.
        version_compatible: whether later versions of the library run it: those of its major version, and the next (10 after 8).
        batch_opt: the batch that it is tuned for.
        source: path of the graph that it was built from; ``source_sha256`` is of its content.
        rest: what only people and reports read.
    """

    library: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    driver: str | None
    hardware_compatibility: str
    version_compatible: bool
    batch_opt: int
    source: str
    source_sha256: str
    rest: dict[str, Any] = field(default_factory=dict)

    def to_details(self) -> dict[str, Any]:
        """Return the manifest's ``details``."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "rest"}
        return known | {"compute_capabilities": list(self.compute_capabilities)} | self.rest

    @classmethod
    def from_details(cls, details: Mapping[str, Any], where: str) -> EngineRecord:
        """Read :meth:`to_details`' result back.

        Raises:
            BundleError: the record is malformed.
        """
        names = [name for name in cls.__dataclass_fields__ if name != "rest"]
        try:
            check(dict(details), ENGINE)
        except DocumentError as error:
            raise BundleError(f"{where}: malformed record of an engine: {error}; build it again") from error
        known = {name: details[name] for name in names}
        known["compute_capabilities"] = tuple(known["compute_capabilities"])
        return cls(**known, rest={name: value for name, value in details.items() if name not in names})

    @property
    def built_for(self) -> str:
        """For people: ``built for SM 8.6 with TensorRT-RTX 1.7.1``."""
        gpus = "SM " + ", ".join(self.compute_capabilities) if self.compute_capabilities else "SM 8.0 and later"
        return f"built for {gpus} with {TITLES[self.library]} {self.version}"

    def require_fit(self, device: int | None = None) -> tuple[Library, Gpu]:
        """Return the library and the GPU that run the engine here.

        What the record does not say is left to the library, which refuses what it cannot run.

        Args:
            device: CUDA's number of the GPU; None: 0.

        Raises:
            BackendError: says what the engine was built for and which part of it this machine lacks.
        """
        try:
            gpu = find_gpu(device or 0)
            require_driver(self.library, gpu.driver)  # first: an import, or what comes after it, may end the process
            library = import_library(self.library)
        except NoGpuError as error:
            raise NoGpuError(f"{self.built_for}; this machine: {error}") from error
        except BackendError as error:
            raise BackendError(f"{self.built_for}; this machine: {error}") from error
        if (problem := self.misfit(library, gpu)) is not None:
            raise BackendError(f"{self.built_for}; this machine: {problem}")
        return library, gpu

    def misfit(self, library: Release, gpu: Gpu) -> str | None:
        """Return what of a machine the engine was not built for, its library or its GPU; None where it fits by the record."""
        return self._version_problem(library) or self._gpu_problem(gpu)

    def _version_problem(self, library: Release) -> str | None:
        here, there = version_numbers(library.version), version_numbers(self.version)
        if here == there or (self.version_compatible and here > there and _reads(here[0], there[0])):
            return None
        return library.title

    def _gpu_problem(self, gpu: Gpu) -> str | None:
        here = gpu.compute_capability
        wanted = [_capability(text) for text in self.compute_capabilities]
        if self.library == "tensorrt-rtx" and not wanted:
            # "8.0, 8.6, 8.9, 12.0, and later" (its guide, "CPU-Only AOT"); the library judges those between
            fits = here >= (8, 0)
        elif self.hardware_compatibility == "ampere_plus":
            fits = here >= (8, 0)
        else:
            fits = here in wanted
        return None if fits else f"{gpu.name}, SM {gpu.sm}"


def _reads(here: int, there: int) -> bool:
    """Return whether a major version of TensorRT runs an older one's version-compatible plans (NVIDIA, "Version Compatibility")."""
    return here == there or (here, there) in ((10, 8), (11, 10))


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
