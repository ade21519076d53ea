"""How engines are to be built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtl_deploy.runtime.backends.tensorrt.library import LIBRARIES
from mtl_deploy.runtime.backends.tensorrt.record import HARDWARE_COMPATIBILITY
from mtl_deploy.runtime.errors import OptionError

ENGINES = ("auto", "none", *LIBRARIES)
DEFAULT_BATCH = (1, 1, 8)


@dataclass(frozen=True)
class EngineOptions:
    """How engines are built.

    Attributes:
        library: ``auto`` (the one that can build here, if there is one), ``none``, ``tensorrt`` or ``tensorrt-rtx``.
        gpus: compute capabilities that TensorRT-RTX builds for ahead of time (``sm86``); empty: its default, Ampere and later.
        batch: the profile: smallest batch, the one to tune for, the largest; None: 1, 1 and 8, or a graph's own fixed batch.
        workspace_mib: memory that a layer may use besides its tensors, in MiB; None: the library's default, all of the GPU's.
        optimization_level: 0 to 5; None: the library's default, 3.
        timing_cache: file with measurements from earlier builds, which is read and updated.
        version_compatible: whether later versions of the library can run the engine.
        hardware_compatibility: ``none``, ``ampere_plus`` or ``same_compute_capability``.
        tactic_sources: where kernels may come from; None: the library's default.
        threads: that the builder uses; None: one.
        tf32: whether FP32 layers may compute in TF32.
        precisions: of the graphs that get engines; None: all that TensorRT reads.
    """

    library: str = "none"
    gpus: tuple[str, ...] = ()
    batch: tuple[int, int, int] | None = None
    workspace_mib: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    tactic_sources: tuple[str, ...] | None = None
    threads: int | None = None
    tf32: bool = False
    precisions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values that can be checked without a library.

        Raises:
            OptionError: a value cannot be used.
        """
        if self.library not in ENGINES:
            raise OptionError(f"--engine {self.library}: choose from {', '.join(ENGINES)}")
        if self.batch is not None and not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise OptionError(
                f"--batch {':'.join(map(str, self.batch))}: write MIN:OPT:MAX, 1 or more, in ascending order"
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise OptionError(f"--optimization-level {self.optimization_level}: choose from 0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise OptionError(f"--workspace {self.workspace_mib}: write a number of MiB, 1 or more")
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            raise OptionError(
                f"--hardware-compatibility {self.hardware_compatibility}: choose from {', '.join(HARDWARE_COMPATIBILITY)}"
            )
        if self.gpus and self.library == "tensorrt":
            raise OptionError(
                "--gpu is TensorRT-RTX's option; TensorRT builds for the GPU of the machine that it runs on: leave the option out"
            )

    def profile(self, batch: int | None) -> tuple[int, int, int]:
        """Return smallest, optimal and largest batch for a graph.

        Args:
            batch: the only one that the graph takes; None if it takes any.

        Raises:
            OptionError: the graph takes only one batch, and another was asked for.
        """
        if batch is None:
            return DEFAULT_BATCH if self.batch is None else self.batch
        if self.batch is not None and self.batch != (batch, batch, batch):
            raise OptionError(
                f"--batch {':'.join(map(str, self.batch))}: the graph takes only batches of {batch}; leave --batch out"
            )
        return batch, batch, batch

    def to_dict(self) -> dict[str, object]:
        """Return the settings that were chosen, for the manifest."""
        chosen: dict[str, object] = {"tf32": self.tf32}
        for name in ("workspace_mib", "optimization_level", "threads"):
            if getattr(self, name) is not None:
                chosen[name] = getattr(self, name)
        if self.tactic_sources is not None:
            chosen["tactic_sources"] = list(self.tactic_sources)
        return chosen


def parse_batch(text: str | None) -> tuple[int, int, int] | None:
    """Read ``--batch``: ``8`` for a static batch, or ``MIN:OPT:MAX``.

    Raises:
        OptionError: it is neither.
    """
    if text is None:
        return None
    parts = text.split(":")
    try:
        sizes = [int(part) for part in parts]
    except ValueError:
        sizes = []
    if len(sizes) == 1:
        sizes *= 3
    if len(sizes) != 3:
        raise OptionError(f"--batch {text!r}: write MIN:OPT:MAX, such as 1:8:32, or one number for a static batch")
    return sizes[0], sizes[1], sizes[2]
