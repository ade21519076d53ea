"""What is compared: one shared pass, and the separate models that it replaces, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle import MANIFEST, Artifact, Bundle, find_bundle, open_bundle
from mtl_deploy.runtime.errors import BundleError, OptionError, WorkError
from mtl_deploy.runtime.loading import load
from mtl_deploy.runtime.model import Model
from mtl_deploy.runtime.selection import select

Batch = npt.NDArray[np.generic]
Outputs = Mapping[str, npt.NDArray[np.generic]]

ENGINES = (".trt", ".engine", ".plan")
RELATIVE = {"fp32": 1e-3, "fp16": 3e-2}  # what outputs may differ by, of a task's largest value


class Contestant(Protocol):
    """Computes all tasks of a batch. What one call costs is what is measured."""

    name: str
    details: str  # the library and the provider or device that run it

    def __call__(self, batch: Batch) -> Outputs:
        """Run all tasks on a ready batch, from host memory to host memory; raw outputs by task."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Shared:
    """One model, one pass, all tasks."""

    name = "shared"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.details = model.backend.details

    def __call__(self, batch: Batch) -> Outputs:
        """Run the one model."""
        return self.model(batch)

    def close(self) -> None:
        """Free it."""
        self.model.close()


class Separate:
    """A model a task, one after the other."""

    name = "separate"

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = tuple(models)
        self.details = self.models[0].backend.details

    def __call__(self, batch: Batch) -> Outputs:
        """Run every model."""
        outputs: dict[str, npt.NDArray[np.generic]] = {}
        for model in self.models:
            outputs |= model(batch)
        return outputs

    def close(self) -> None:
        """Free them."""
        for model in self.models:
            model.close()


@dataclass(frozen=True)
class Pair:
    """The artifacts to compare.

    Attributes:
        bundle: that holds them.
        shared: one artifact, all tasks.
        separate: one a task, of the same precision and backend.
    """

    bundle: Bundle
    shared: Artifact
    separate: tuple[Artifact, ...]

    def side(self, name: str) -> tuple[Artifact, ...]:
        """Return the artifacts of ``shared`` or ``separate``."""
        return (self.shared,) if name == "shared" else self.separate


@dataclass(frozen=True)
class Settings:
    """How both sides are run.

    Attributes:
        providers: ONNX Runtime's; None: its default here.
        threads: inside an operator; None: one a core.
        spinning: whether idle threads spin.
    """

    providers: tuple[str, ...] | None = None
    threads: int | None = None
    spinning: bool = False


def find_pair(path: Path, precision: str | None, providers: Sequence[str] | None) -> Pair:
    """Find what to compare.

    Args:
        path: a bundle or an artifact in one; an artifact's precision is then compared.
        precision: the one wanted; None: the artifact's, or the one that the runtime would choose.
        providers: ONNX Runtime's; they tell the device.

    Raises:
        OptionError: the path is an engine, or ``precision`` is not the artifact's.
        BundleError: the path lies in no bundle, or the bundle has no separate models of the precision.
        BackendError: the bundle has no shared artifact of the precision.
    """
    bundle, given = _bundle_of(path)
    if given is not None and precision not in (None, given.precision):
        raise OptionError(f"{path} is {given.precision}, --precision says {precision}; leave one of them out")
    wanted = given.precision if given is not None else precision
    shared = select(bundle, precision=wanted, backend="onnxruntime", providers=providers).artifact
    separate = [
        artifact
        for task in bundle.manifest.tasks
        for artifact in bundle.manifest.artifacts
        if artifact.role == "separate"
        and artifact.tasks == (task.name,)
        and (artifact.precision, artifact.backend) == (shared.precision, shared.backend)
    ]
    missing = {task.name for task in bundle.manifest.tasks} - {artifact.tasks[0] for artifact in separate}
    if missing:
        raise BundleError(
            f"{bundle.path} has no separate {shared.precision} model of {', '.join(sorted(missing))} to compare with; export "
            "again without --no-separate"
        )
    return Pair(bundle, shared, tuple(separate))


def _bundle_of(path: Path) -> tuple[Bundle, Artifact | None]:
    if path.is_dir() or path.name == MANIFEST:
        return open_bundle(path), None
    if path.suffix in ENGINES:
        around = next((folder for folder in path.resolve().parents if (folder / MANIFEST).is_file()), None)
        raise OptionError(
            f"{path}: this release does not run engines; measure the ONNX graphs of its bundle: mtl-bench {around or 'NAME.mtl'}"
        )
    if not path.exists():
        raise BundleError(f"{path}: no such bundle or file; make a bundle with mtl-export")
    found = find_bundle(path)
    if found is None:
        raise BundleError(
            f"{path} lies in no bundle that lists it, so there is nothing to compare it with; pass a bundle"
        )
    return found


def start(pair: Pair, name: str, settings: Settings) -> Contestant:
    """Load ``shared`` or ``separate``."""
    models = [
        load(
            pair.bundle.path / artifact.path,
            providers=settings.providers,
            threads=settings.threads,
            spinning=settings.spinning,
        )
        for artifact in pair.side(name)
    ]
    return Shared(models[0]) if name == "shared" else Separate(models)


def make_batch(pair: Pair, size: int, seed: int) -> Batch:
    """Return a batch of noise in the form that the graphs take.

    Noise will do: a dense network does the same work on any image. It is not zeros, which some kernels treat apart and
    which lead to denormal numbers.

    Raises:
        OptionError: the artifacts do not take such a batch, or it does not fit into memory.
    """
    low, high = pair.shared.batch_min, pair.shared.batch_max
    if size < low or (high is not None and size > high):
        raise OptionError(f"--batch {size}: {pair.shared.path} takes {low} to {high or 'any number'}")
    preprocessing = pair.bundle.manifest.signature.preprocessing
    rng = np.random.default_rng(seed)
    try:
        if preprocessing.input == "uint8":
            return rng.integers(0, 256, (size, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
        return rng.standard_normal((size, 3, preprocessing.height, preprocessing.width), dtype=np.float32)
    except (MemoryError, ValueError) as error:  # ValueError: more than an array can index
        raise OptionError(f"--batch {size}: these images do not fit into memory; use fewer") from error


def require_agreement(first: Contestant, second: Contestant, batch: Batch, precision: str) -> None:
    """Compare the contestants' outputs, since the speed of a wrong answer is of no interest.

    Raises:
        WorkError: names the task that differs, with the figures.
    """
    expected, found = first(batch), second(batch)
    for task, values in expected.items():
        allowed = RELATIVE.get(precision, 0.1) * max(float(np.abs(values).max()), 1.0)
        error = float(np.abs(values.astype(np.float64) - found[task].astype(np.float64)).max())
        if not error <= allowed:
            raise WorkError(
                f"task {task!r}: {first.name} and {second.name} differ by {error:.3g} (allowed {allowed:.3g}), so they are not "
                "compared for speed; export the bundle again"
            )
