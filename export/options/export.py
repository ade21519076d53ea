"""What ``mtl-export`` was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.calibration.search.budgets import check_budgets
from mtl_deploy.export.graph.opset import HIGHEST, LOWEST
from mtl_deploy.export.targets.linter import Target
from mtl_deploy.runtime.bundle.manifest import SUFFIX
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import OptionError

from .engines import EngineOptions
from .images import Stated

PRECISIONS = ("fp32", "fp16", "int8")
DEFAULT_PRECISIONS = ("fp32", "fp16")
SAMPLES = 32
QUICK_SAMPLES = 8
FEWEST_SAMPLES = 2
"""Images that verification needs at least: with one, a task's values have no spread to judge an error by."""


@dataclass(frozen=True)
class Options:
    """What ``mtl-export`` was asked for.

    Attributes:
        checkpoint: the file to read.
        output: the bundle's folder (``NAME.mtl``), or the folder to put ``<checkpoint>.mtl`` in; None: the current folder.
        model: ``package.module:factory`` of the user's network; None if the file says it all.
        weights: which of several state dicts in the file, such as ``ema``; None: the likeliest that fits.
        trust_pickle: allow a pickle to run its code.
        constants: other arguments of the network's ``forward``, by name.
        tasks: the tasks; None: the network's own default ones.
        preprocessing: image size, normalisation and the form of the input.
        stated: what the user said about the preprocessing, part by part; a preset fills in the rest. None: ``preprocessing`` is
            complete, and a preset in the checkpoint is ignored.
        image_size_given: whether the user chose the size; otherwise the size of a program wins.
        outputs: whether the graphs decode.
        opset: of the graphs; None: 17 if it can express them, so that TensorRT 8.6 reads them too, else 18.
        precisions: which variants to write; fp32 is always among them.
        named: the precisions that were asked for by name: the export fails if one of them fails, while others are left out.
        separate: whether to write the single-task models too.
        split: whether to write the graphs in parts too, backbone and heads.
        images: real images for verification; None: generated ones.
        samples: number of images for verification.
        quick: for development: what takes time and is not needed to see whether a network exports is left out, and the bundle
            says what; see :attr:`unchecked`.
        tolerances: errors allowed, as shares of the spread, by precision; :data:`mtl_deploy.export.tolerances.GRAPHS` for the
            others.
        threads: for PyTorch and ONNX Runtime; None: their own defaults.
        force: replace an existing bundle.
        sign: an Ed25519 private key to sign the bundle with.
        engines: how engines are built.
        targets: devices and releases whose TensorRT must read the graphs.
        calibration_data: real images for INT8; see :func:`~mtl_deploy.calibration.data.dataset.load_data`.
        labels: a CSV file of their labels.
        int8: how INT8 graphs are made.
    """

    checkpoint: Path
    output: Path | None = None
    model: str | None = None
    weights: str | None = None
    trust_pickle: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    stated: Stated | None = None
    image_size_given: bool = False
    outputs: Outputs = "decoded"
    opset: int | None = None
    precisions: tuple[str, ...] = DEFAULT_PRECISIONS
    named: frozenset[str] = frozenset()
    separate: bool = True
    split: bool = False
    images: Path | None = None
    samples: int = SAMPLES
    quick: bool = False
    tolerances: Mapping[str, float] = field(default_factory=dict)
    threads: int | None = None
    force: bool = False
    sign: Path | None = None
    engines: EngineOptions = field(default_factory=EngineOptions)
    targets: tuple[Target, ...] = ()
    calibration_data: Path | None = None
    labels: Path | None = None
    int8: Int8Options = field(default_factory=Int8Options)

    def __post_init__(self) -> None:
        """Check the values that can be checked without reading a file.

        Raises:
            OptionError: a value cannot be used.
        """
        if unknown := sorted(set(self.precisions) - set(PRECISIONS)):
            raise OptionError(f"precision {unknown[0]!r}: choose from {', '.join(PRECISIONS)}")
        if "fp32" not in self.precisions:
            raise OptionError(
                "fp32 must be among the precisions: the others are made from it and compared with it; add it"
            )
        if "int8" in self.precisions and self.calibration_data is None:
            raise OptionError(
                "int8 needs real images to find ranges: pass --calibration-data with a folder of them, a list, .npy or .npz; "
                "512 to 1024 images like those that the network will see are enough"
            )
        if self.opset is not None and not LOWEST <= self.opset <= HIGHEST:
            raise OptionError(f"opset {self.opset}: choose from {LOWEST} to {HIGHEST}")
        if self.samples < FEWEST_SAMPLES:
            raise OptionError(
                f"{self.samples} samples: verification needs {FEWEST_SAMPLES} or more, and {SAMPLES} to be sure; raise --samples"
            )
        if self.int8.budgets is not None and self.tasks is not None:
            check_budgets(self.int8.budgets, self.tasks)
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"{self.threads} threads: use 1 or more")

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What a quick export neither checks nor makes, for people; empty for a usual one."""
        if not self.quick:
            return ()
        return (
            *(
                (f"verified on {counted(self.samples, 'image')} instead of {SAMPLES}",)
                if self.samples < SAMPLES
                else ()
            ),
            "no pictures unlike photographs",
            "no search for weights that verification cannot see",
            *(f"no {precision.upper()}" for precision in DEFAULT_PRECISIONS if precision not in self.precisions),
            *(() if self.separate else ("no separate models",)),
        )

    @property
    def target(self) -> Path:
        """The bundle's folder."""
        name = self.checkpoint.stem + SUFFIX
        if self.output is None:
            return Path(name)
        return self.output if self.output.suffix == SUFFIX else self.output / name
