"""The artifacts that are compared: one shared, and the separate ones that it replaces, of the same precision and backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import MANIFEST, Artifact, Bundle, find_bundle, open_bundle
from mtl_deploy.runtime.errors import BackendError, BundleError, OptionError
from mtl_deploy.runtime.selection import Running, graph_choice, select

Batch = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Pair:
    """The artifacts to compare.

    Attributes:
        bundle: the bundle that holds them.
        shared: the artifact that computes all tasks.
        separate: one artifact per task, of the same precision and backend, for engines also of the same library.
        misfit: why the bundle's engines are not compared; None where they are, or where it has none.
        backend: what runs them: ``tensorrt``, ``onnxruntime`` or ``openvino``.
        why: the reason for this backend, for people.
    """

    bundle: Bundle
    shared: Artifact
    separate: tuple[Artifact, ...]
    misfit: str | None = None
    backend: str = "onnxruntime"
    why: str = ""

    def side(self, name: str) -> tuple[Artifact, ...]:
        """Return the artifacts of ``shared`` or ``separate``."""
        return (self.shared,) if name == "shared" else self.separate

    @property
    def engines(self) -> bool:
        """Whether engines are compared rather than graphs."""
        return self.shared.backend == "tensorrt"


@dataclass(frozen=True)
class Settings:
    """How both sides run.

    Attributes:
        providers: ONNX Runtime's execution providers; None: the default here.
        threads: ONNX Runtime's threads inside an operator, or OpenVINO's; None: one per core.
        spinning: whether ONNX Runtime's idle threads spin.
        cuda_graphs: whether engines are launched as CUDA graphs.
        backend: what runs graphs; None: what the runtime chooses.
        mode: what graphs on processors are run for, ``latency`` or ``throughput``.
    """

    providers: tuple[str, ...] | None = None
    threads: int | None = None
    spinning: bool = False
    cuda_graphs: bool = True
    backend: str | None = None
    mode: str = "latency"


def find_pair(
    path: Path,
    precision: str | None,
    providers: Sequence[str] | None,
    backend: str | None = None,
    threads: int | None = None,
) -> Pair:
    """Find what to compare.

    Args:
        path: a bundle, or an artifact in one, whose precision, backend and library are then compared.
        precision: the wanted one; None: the artifact's, or the one that the runtime would choose.
        providers: ONNX Runtime's; they choose the device, and graphs rather than engines.
        backend: ``tensorrt``, ``onnxruntime`` or ``openvino``; None: the artifact's, or engines where they fit this machine, else
            what the runtime would run the graphs on.
        threads: of the backend: measurements in the bundle count for the number that they were made with.

    Raises:
        OptionError: the options contradict the artifact.
        BundleError: the path lies in no bundle, or the bundle has no separate models to compare with.
        BackendError: the bundle has no such shared artifact, or the engines that were asked for do not run here.
    """
    bundle, given = _bundle_of(path)
    if given is not None:
        _check_given(path, given, precision, providers, backend)
        if given.backend == "tensorrt":
            return _engine_pair(path, bundle, given)
        precision = given.precision
    running = Running(threads)
    graph = None if given is None else _shared_of(bundle, given)
    try:
        if graph is not None:
            choice = graph_choice(bundle, graph, backend, providers, running)
        else:
            choice = select(bundle, precision=precision, backend=backend, providers=providers, running=running)
    except BackendError as error:
        if backend == "tensorrt" and any(artifact.backend == backend for artifact in bundle.manifest.artifacts):
            remedy = f"measure the graphs instead: mtl-bench {path} --backend onnxruntime"
            raise type(error)(f"{error}; {remedy}") from error
        raise
    shared, misfit = choice.artifact, choice.misfit
    separate, missing = _separate(bundle, shared)
    if missing and shared.backend == "tensorrt" and backend is None:  # there may be all graphs
        misfit = _no_separate(bundle, shared, missing)
        choice = select(bundle, precision=precision, backend="onnxruntime", providers=providers, running=running)
        shared = choice.artifact
        separate, missing = _separate(bundle, shared)
    if missing:
        raise BundleError(_no_separate(bundle, shared, missing))
    return Pair(bundle, shared, separate, misfit, choice.backend, choice.why)


def _bundle_of(path: Path) -> tuple[Bundle, Artifact | None]:
    if path.is_dir() or path.name == MANIFEST:
        return open_bundle(path), None
    if not path.exists():
        raise BundleError(f"{path}: no such bundle or file; make a bundle with mtl-export")
    found = find_bundle(path)
    if found is None:
        raise BundleError(
            f"{path} lies in no bundle that lists it, so there is nothing to compare it with; pass a bundle"
        )
    return found


def _check_given(
    path: Path, given: Artifact, precision: str | None, providers: Sequence[str] | None, backend: str | None
) -> None:
    if precision not in (None, given.precision):
        raise OptionError(f"{path} is {given.precision}, --precision says {precision}; leave one of them out")
    if backend not in (None, given.backend, *(["openvino"] if given.backend == "onnxruntime" else [])):
        raise OptionError(f"{path} runs on {given.backend}, --backend says {backend}; leave one of them out")
    if providers and given.backend == "tensorrt":
        raise OptionError(f"{path} is an engine, and --provider is ONNX Runtime's; leave one of them out")


def _engine_pair(path: Path, bundle: Bundle, given: Artifact) -> Pair:
    """Return the pair that an engine belongs to, which the user named."""
    record = EngineRecord.from_details(given.details, str(path))
    try:
        record.require_fit()
    except BackendError as error:
        raise type(error)(f"{path}: {error}; {instead(bundle, given)}") from error
    shared = _shared_of(bundle, given)
    if shared is None:
        raise BundleError(
            f"{bundle.path} has no shared {given.precision} engine to compare with; build its engines with mtl-export BUNDLE"
        )
    separate, missing = _separate(bundle, shared)
    if missing:
        raise BundleError(_no_separate(bundle, shared, missing))
    return Pair(bundle, shared, separate, None, "tensorrt", "it is an engine")


def _shared_of(bundle: Bundle, given: Artifact) -> Artifact | None:
    """Return the shared artifact that a file belongs to, or is."""
    return given if given.role == "shared" else next(_alike(bundle, given, "shared", None), None)


def instead(bundle: Bundle, engine: Artifact) -> str:
    """Say how to measure the graph that an engine was built from."""
    return f"measure its graph instead: mtl-bench {bundle.path / str(engine.details.get('source', ''))}"


def _separate(bundle: Bundle, shared: Artifact) -> tuple[tuple[Artifact, ...], list[str]]:
    """Return the separate artifacts that match a shared one, and the names of the tasks that have none."""
    found = {task.name: next(_alike(bundle, shared, "separate", task.name), None) for task in bundle.manifest.tasks}
    separate = tuple(artifact for artifact in found.values() if artifact is not None)
    return separate, sorted(name for name, artifact in found.items() if artifact is None)


def _alike(bundle: Bundle, artifact: Artifact, role: str, task: str | None) -> Iterator[Artifact]:
    """Yield artifacts of another one's precision, backend and library; first those for the same GPUs and version."""
    same = [
        other
        for other in bundle.manifest.artifacts
        if other.role == role
        and (task is None or other.tasks == (task,))
        and (other.precision, other.backend) == (artifact.precision, artifact.backend)
        and other.details.get("library") == artifact.details.get("library")
    ]
    target = ("compute_capabilities", "version", "gpu")
    yield from sorted(same, key=lambda o: sum(o.details.get(word) != artifact.details.get(word) for word in target))


def of_precision(pair: Pair, precision: str) -> Pair:
    """Return the same bundle's artifacts of another precision, on the same backend.

    Args:
        pair: what is compared.
        precision: ``fp32``, ``fp16``, ``int8`` or ``int8-cpu``, in any case; ``int8`` also finds the latter.

    Raises:
        BundleError: the bundle has no shared one, or no separate ones.
    """
    precision = precision.lower()
    words = (precision, "int8-cpu") if precision == "int8" else (precision,)
    for word in words:
        alike = replace(pair.shared, precision=word)
        shared = next(_alike(pair.bundle, alike, "shared", None), None)
        if shared is None:
            continue
        separate, missing = _separate(pair.bundle, shared)
        if missing:
            raise BundleError(_no_separate(pair.bundle, shared, missing))
        return Pair(pair.bundle, shared, separate, None, pair.backend, pair.why)
    kind = "engine" if pair.engines else "graph"
    raise BundleError(
        f"{pair.bundle.path} has no shared {precision} {kind}; choose a precision that it has, or export again"
    )


def _no_separate(bundle: Bundle, shared: Artifact, missing: Sequence[str]) -> str:
    kind, remedy = "model", "export again without --no-separate"
    if shared.backend == "tensorrt":
        kind, remedy = "engine", "build them with mtl-export BUNDLE"
    return f"{bundle.path} has no separate {shared.precision} {kind} of {', '.join(missing)} to compare with; {remedy}"


def require_batch(pair: Pair, size: int) -> None:
    """Check that all artifacts take batches of a size.

    Raises:
        OptionError: names one that does not.
    """
    for artifact in (pair.shared, *pair.separate):
        low, high = artifact.batch_min, artifact.batch_max
        if size < low or (high is not None and size > high):
            raise OptionError(f"--batch {size}: {artifact.path} takes {low} to {high or 'any number'}")


def make_batch(pair: Pair, size: int, seed: int) -> Batch:
    """Return a batch of noise as the graphs take it.

    Noise is enough: a network does the same work on any image. Zeros would not do: some kernels treat them specially, and they
    lead to denormal numbers.

    Raises:
        OptionError: the artifacts do not take such a batch, or it does not fit into memory.
    """
    require_batch(pair, size)
    preprocessing = pair.bundle.manifest.signature.preprocessing
    rng = np.random.default_rng(seed)
    try:
        if preprocessing.input == "uint8":
            return rng.integers(0, 256, (size, *preprocessing.input_shape), dtype=np.uint8)
        return rng.standard_normal((size, *preprocessing.input_shape), dtype=np.float32)
    except (MemoryError, ValueError) as error:  # ValueError: more than an array can index
        raise OptionError(f"--batch {size}: these images do not fit into memory; use fewer") from error
