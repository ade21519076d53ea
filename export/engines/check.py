"""Verifying engines: each is run on the GPU and compared with what PyTorch gave, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.observe.spread import spread as spread_of
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.tolerances import ENGINES, FLOORS, LEAST_SCALE, TF32, tolerance_of
from mtl_deploy.export.verification.rows import require_passed
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Part
from mtl_deploy.runtime.bundle.reference import Images, Reference, read
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import BackendError
from mtl_deploy.runtime.images.batches import pieces
from mtl_deploy.runtime.loading import load


def verify_engines(
    bundle: Bundle, engines: Sequence[Artifact], tolerances: Mapping[str, float], progress: Progress
) -> tuple[list[Artifact], list[Row]]:
    """Run engines that fit this machine, and compare their outputs with the bundle's reference.

    Args:
        bundle: holds the engines and the reference.
        engines: entries of its manifest.
        tolerances: by precision, if the user chose them; :data:`~mtl_deploy.export.tolerances.ENGINES` otherwise.
        progress: shows what is being done.

    Returns:
        The entries with ``verified`` in their details (true, or the reason why they were not run), and one row per engine and
        task.

    Raises:
        VerificationError: an engine does not match; names artifact, task and figures.
        RunError: an engine failed.
    """
    reference = read(bundle)
    found: list[Artifact] = []
    rows: list[Row] = []
    for engine in engines:
        reason = "the bundle has no reference" if reference is None else _misfit(bundle, engine)
        if reason is None and reference is not None:
            with progress.step(f"Verifying {engine.path}"):
                rows += _verify(bundle, engine, reference, tolerances)
        found.append(replace(engine, details=engine.details | {"verified": True if reason is None else reason}))
    require_passed(rows)
    return found, rows


def verify_parts(
    bundle: Bundle, parts: Sequence[Part], tolerances: Mapping[str, float], progress: Progress
) -> tuple[list[Part], list[Row]]:
    """Do the same with engines that are the parts of a network: those of a precision are run together.

    Args:
        bundle: holds them, with the engine of the whole network.
        parts: entries of its manifest.
        tolerances: see :func:`verify_engines`.
        progress: likewise.

    Raises:
        VerificationError: they do not match.
        RunError: one failed.
    """
    reference = read(bundle)
    found: list[Part] = []
    rows: list[Row] = []
    for precision in dict.fromkeys(part.precision for part in parts):
        own = [part for part in parts if part.precision == precision]
        reasons = ["the bundle has no reference"] if reference is None else [_misfit(bundle, part) for part in own]
        reason = next((each for each in reasons if each is not None), None)
        if reason is None and reference is not None:
            folder = own[0].path.rpartition("/")[0]
            with progress.step(f"Verifying {folder}"):
                whole = replace(own[0], path=folder, tasks=tuple(task.name for task in bundle.manifest.tasks))
                rows += _verify(bundle, whole, reference, tolerances)
        verified = True if reason is None else reason
        found += [replace(part, details=part.details | {"verified": verified}) for part in own]
    require_passed(rows)
    return found, rows


def _misfit(bundle: Bundle, engine: Artifact) -> str | None:
    try:
        EngineRecord.from_details(engine.details, str(bundle.path / engine.path)).require_fit()
    except BackendError as error:
        return str(error).rpartition("; ")[2]  # what the engine was built for is recorded beside it
    return None


def _verify(bundle: Bundle, engine: Artifact, reference: Reference, tolerances: Mapping[str, float]) -> list[Row]:
    images, outputs = reference.images, reference.outputs
    if (
        engine.precision == "int8" and reference.int8
    ):  # what INT8 costs is measured on real images; this checks the engine
        outputs = reference.int8
    tf32 = engine.precision == "fp32" and engine.details.get("settings", {}).get("tf32")
    parts: dict[str, list[Any]] = {name: [] for name in engine.tasks}
    in_parts = engine.role == "part"
    chosen: dict[str, Any] = {"precision": engine.precision, "split": True} if in_parts else {}
    path = bundle.path if in_parts else bundle.path / engine.path
    with load(path, backend="tensorrt", runtime_cache=False, **chosen) as model:
        for piece in _pieces(images, engine):
            for name, array in model(piece).items():
                parts[name].append(array)
    signature = bundle.manifest.signature.subset(engine.tasks)
    return [
        _compare(
            engine.path,
            task,
            signature,
            np.concatenate(parts[task.name])[: len(images)],
            outputs[task.name],
            max(tolerance_of(engine.precision, tolerances, ENGINES), TF32 if tf32 else 0.0),
            reference.margins.get(task.name),
            reference.floors.get(task.name),
            exact=engine.precision == "fp32",
        )
        for task in signature.tasks
    ]


def _pieces(images: Images, engine: Artifact) -> list[Images]:
    """Cut the images into batches: first the smallest that the engine takes, then the largest."""
    low, high = engine.batch_min, min(engine.batch_max or len(images), max(len(images), engine.batch_min))
    smallest = [images[:low]] if low <= len(images) else []
    return [*smallest, *pieces(images[low:] if smallest else images, high, least=low)]


@dataclass(frozen=True)
class _Measured:
    """Errors of one task: the absolute ``difference``, the error that decides, what is allowed, and the first over the second."""

    difference: npt.NDArray[np.float64]
    error: float
    allowed: float
    excess: float
    spread: float | None = None


def _compare(
    path: str,
    task: Task,
    signature: Signature,
    actual: Any,
    expected: Any,
    tolerance: float,
    margins: Any = None,
    floors: Any = None,
    *,
    exact: bool = False,
) -> Row:
    """Compare as graphs are compared, without the logits, which engines do not give; margins stand for them.

    Args:
        path: the engine's, for the row.
        task: to compare.
        signature: of the engine.
        actual: what the engine gave.
        expected: what it must give.
        tolerance: the error allowed, as a share of the spread.
        margins: how sure the network is of each pixel; None if the reference does not say.
        floors: the noise floor of each image; None if the reference does not say.
        exact: whether the largest error of each image decides, as for FP32, or the root mean square.
    """
    decoded, kind = signature.outputs == "decoded", kind_of(task)
    if decoded and kind.by_margin(task) and margins is not None:
        difference = kind.lost_margin(task, actual, expected, margins)
        measured = _against(difference, 2 * tolerance * max(float(margins.max()), LEAST_SCALE))
    elif decoded and kind.by_margin(task) and kind.choosing:  # the share of places with another class
        measured = _against(np.mean((actual != expected).astype(np.float64), keepdims=True), tolerance)
    else:
        measured = _by_value(task, signature, actual, expected, tolerance, floors, exact=exact)
    agreement = None
    if kind.choosing:
        ours, theirs = (kind.chosen(task, each, decoded=decoded) for each in (actual, expected))
        agreement = float(np.mean(ours == theirs))
    return Row(
        artifact=path,
        task=task.name,
        samples=len(expected),
        max_error=float(measured.difference.max()),
        mean_error=float(measured.difference.mean()),
        tolerance=measured.allowed,
        agreement=agreement,
        error=measured.error,
        excess=measured.excess,
        spread=measured.spread,
        truth="reference",
    )


def _against(difference: npt.NDArray[np.float64], allowed: float) -> _Measured:
    error = float(difference.max())
    return _Measured(difference, error, allowed, error / allowed)


def _by_value(
    task: Task, signature: Signature, actual: Any, expected: Any, tolerance: float, floors: Any, *, exact: bool
) -> _Measured:
    """Judge the root mean square of the error relative to the spread; of FP32 engines the largest error of each image.

    Either may be :data:`~mtl_deploy.export.tolerances.FLOORS` times the noise floor.
    """
    kind = kind_of(task)
    actual, expected = kind.view(task, actual), kind.view(task, expected)
    scales = kind.scales(task, decoded=signature.outputs == "decoded")
    difference = np.abs(actual.astype(np.float64) - expected)
    apart = scales.apart
    flat = difference.reshape(len(difference), difference.shape[1] if apart else 1, -1)
    scale, spread = _scale(expected, apart=apart, absolute=scales.absolute)
    least = np.spacing(np.abs(expected).max(initial=0).astype(np.float32)) / 2
    floor = np.maximum(least, np.zeros(flat.shape[:2]) if floors is None else floors)
    by_image = np.maximum(tolerance * scale, FLOORS * floor)
    together = np.sqrt(np.mean(np.mean(flat**2, axis=2), axis=0))
    worst = int(np.argmax(np.nan_to_num(together / scale, nan=np.inf)))
    if exact:
        shares, error = flat.max(axis=2) / by_image, float(flat.max())
    else:
        shares, error = together / np.maximum(tolerance * scale, FLOORS * floor.max(axis=0)), float(together[worst])
    return _Measured(difference, error, float(by_image[:, worst].max()), float(shares.max()), spread)


def _scale(expected: Any, *, apart: bool, absolute: bool) -> tuple[Any, float | None]:
    """Return what errors are relative to, ``(K,)``, and the spread if that is what they are relative to."""
    if absolute:
        return np.ones(1), None
    values = expected.reshape(len(expected), expected.shape[1] if expected.ndim != 3 else 1, -1)
    each = spread_of(values)
    size = np.abs(values).max(axis=(0, 2))
    if not apart:
        each, size = np.sqrt(np.mean(each**2, keepdims=True)), size.max(keepdims=True)
    constant = each <= np.spacing(size.astype(np.float32))
    return np.where(constant, np.maximum(size, LEAST_SCALE), each), float(each.max())
