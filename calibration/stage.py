"""INT8 graphs for a bundle: one calibration, two graphs, and what each costs every task."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from mtl_deploy.calibration.accuracy.doubts import doubts
from mtl_deploy.calibration.accuracy.evaluate import Answers, Apart, Source, evaluate
from mtl_deploy.calibration.accuracy.latency import latency_ratio
from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.accuracy.run import run_graph
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.int8.graphs import STYLES, Int8Graphs
from mtl_deploy.calibration.observe import cache
from mtl_deploy.calibration.observe.sound_graph import check_graph
from mtl_deploy.calibration.search.find_skip import find_skip
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Manifest
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.bundle.writing import write_file
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import BundleError, ImageError, VerificationError
from mtl_deploy.runtime.onnx_format.cut import cut

from .options import EVALUATION, SEARCHED, Int8Options

_LISTED = 100  # files that were left out, in the manifest
PRECISIONS = {"tensorrt": "int8", "cpu": "int8-cpu"}


def add_int8(
    folder: Path,
    manifest: Manifest,
    data: CalibrationData,
    options: Int8Options,
    progress: Progress,
    *,
    pytorch: Answers | None = None,
    earlier: Bundle | None = None,
) -> Manifest:
    """Calibrate a bundle's FP32 graph, write its INT8 graphs, shared and separate, and measure every task at every precision.

    Args:
        folder: the bundle's, being written; its FP32 graph is in it.
        manifest: its own so far.
        data: real images, with labels where there are some.
        options: how.
        progress: told where the work is.
        pytorch: the network's outputs on the held-out images; None where PyTorch is not at hand.
        earlier: a bundle whose cached ranges may serve.

    Returns:
        The manifest with the graphs, their verification, the accuracy and the record of the calibration. It is not written.

    Raises:
        BundleError: there is no FP32 graph.
        MissedBudgetError: a budget cannot be met, naming the task.
        WorkError: a graph is broken.
    """
    bundle = Bundle(folder, manifest)
    source = _source(manifest)
    content = bundle.read(source)
    check_graph(content, manifest.signature, source.path, threads=options.threads)
    calibration, searched, held_out = held_apart(data, options)
    batch = source.batch_min if source.batch_min == source.batch_max else None
    regressions = [task.name for task in manifest.tasks if task.kind == "regression"]
    graphs = Int8Graphs(content, calibration.images, manifest.signature, batch, options, regressions)
    key = cache.CacheKey(source.sha256, calibration.digest)
    with progress.step("Calibrating") as say:
        state = _find_ranges(graphs, key, earlier, progress)
        say(state)
    with progress.step("Choosing ranges") as say:
        methods, errors = graphs.choose_methods()
        say(_described(methods, errors))
    skip: frozenset[str] = frozenset()
    trail: dict[str, Any] = {}
    if searched is not None:
        with progress.step("Searching what must stay in higher precision") as say:
            sets = (calibration, searched)
            skip, trail = find_skip(graphs, methods, sets, held_out, manifest.signature, options, progress)
            say(f"{len(skip)} layers, {trail['outcome']}")
    with progress.step("Measuring every task at every precision") as say:
        variants = {PRECISIONS[style]: graphs.build(style, methods[style], skip) for style in STYLES}
        sources = _others(bundle, content, pytorch) | {name: variant.runnable for name, variant in variants.items()}
        measured = evaluate(
            sources, held_out, manifest.signature, batch=batch, threads=options.threads, seed=options.seed
        )
        say(f"on {len(held_out.images)} images held apart")
    if skip:
        everything = graphs.build("cpu", methods["cpu"]).content
        trail["latency"] = latency_ratio(
            variants["int8-cpu"].content,
            everything,
            held_out.images,
            manifest.signature.preprocessing,
            batch=batch,
            threads=options.threads,
        )
    rows = verified(measured.apart, manifest.signature, options)
    artifacts: list[Artifact] = []
    for name, variant in variants.items():
        details = variant.details | ({"search": trail} if trail else {})
        artifacts += _write(folder, manifest, name, variant.content, details)
    manifest = _with_reference(bundle, variants["int8"].runnable, batch, options)
    packed, record = cache.pack(key, cache.FoundRanges(graphs.ranges, graphs.observed))
    write_file(folder, cache.PATH, packed)
    record |= {
        "method": _described(methods, {}),
        "methods": {PRECISIONS[style]: method for style, method in methods.items()},
        "errors": {PRECISIONS[style]: found for style, found in errors.items()},
        "data": data.source,
        "images": len(calibration.images),
        "held_out": len(held_out.images),
        "warnings": list(data.warnings),
        "doubts": list(
            doubts(measured, held_out, "fp32", decoded=manifest.signature.outputs == "decoded", seed=options.seed)
        ),
        "left_out": {"files": len(data.skipped), "first": dict(list(data.skipped.items())[:_LISTED])},
        "kept": sorted(skip),
        "budgets": {key: value for key, value in trail.items() if key != "trail"},
        "ranges": state,
        "coverage": graphs.coverage(methods, skip) or _former_coverage(earlier),
    }
    return _with(manifest, artifacts, rows, measured.matrix, record)


def held_apart(
    data: CalibrationData, options: Int8Options
) -> tuple[CalibrationData, CalibrationData | None, CalibrationData]:
    """Return the images to calibrate on, those to search on where there are budgets, and those to measure accuracy on.

    No two have an image in common: layers that were chosen by an image's answers say nothing of others. Two thirds of what does not
    calibrate measure, as they confirm the budgets too; the search has the calibrating images beside its own. Those that calibrate
    are the same with and without budgets.

    Raises:
        ImageError: there are fewer different images than parts.
    """
    others = 1 - EVALUATION
    try:
        part = data.parts((EVALUATION, others * SEARCHED, others * (1 - SEARCHED)), options.seed)
    except ImageError:
        if options.budgets is not None:
            raise
        part = data.parts((EVALUATION, others), options.seed)  # two images will do
    if options.budgets is None:
        return data.select(part == 0), None, data.select(part > 0)
    return data.select(part == 0), data.select(part == 1), data.select(part == 2)


def _described(methods: Mapping[str, str], errors: Mapping[str, Mapping[str, float]]) -> str:
    """Say which method gives each graph its ranges: one where they share it."""
    if len(set(methods.values())) == 1 and not errors:
        return next(iter(methods.values()))
    texts = []
    for style, method in methods.items():
        figures = ", ".join(f"{name} {error:.2g}" for name, error in errors.get(style, {}).items())
        texts.append(f"{method} for {PRECISIONS[style]}.onnx{f' ({figures})' if figures else ''}")
    return ", ".join(texts)


def _find_ranges(graphs: Int8Graphs, key: cache.CacheKey, earlier: Bundle | None, progress: Progress) -> str:
    """Give the graphs their ranges, from a cache where it serves; return where they come from."""
    found, state = (None, "") if earlier is None else cache.read(earlier, key)
    wanted = set(graphs.methods)
    if found is not None and all(wanted <= set(found.ranges.get(style, ())) for style in STYLES):
        graphs.ranges = {style: {name: found.ranges[style][name] for name in graphs.methods} for style in STYLES}
        graphs.observed = found.observed
        return state
    graphs.ranges = graphs.find_ranges(lambda text: progress.update(f"Calibrating: {text}"))
    fresh = f"found on {len(graphs.images)} images"
    return f"{fresh}; {state}" if state and found is None else fresh


def _former_coverage(earlier: Bundle | None) -> list[dict[str, Any]]:
    """Return what was found when the cached ranges were: they come without histograms."""
    rows: list[dict[str, Any]] = [] if earlier is None else earlier.manifest.calibration.get("coverage", [])
    return rows


def _others(bundle: Bundle, content: bytes, pytorch: Answers | None) -> dict[str, Source]:
    """Return what INT8 is compared with: PyTorch where it is at hand, and the graphs of higher precision."""
    found: dict[str, Source] = {} if pytorch is None else {"pytorch": pytorch}
    found["fp32"] = content
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.precision, artifact.backend) == ("shared", "fp16", "onnxruntime"):
            stored = bundle.read(artifact)
            check_graph(stored, bundle.manifest.signature, artifact.path)
            half = onnx.load_from_string(stored)
            found["fp16"] = emulate_half(half).SerializeToString()  # processors would compute it in FP32
    return found


def _source(manifest: Manifest) -> Artifact:
    for artifact in manifest.artifacts:
        if (artifact.role, artifact.precision, artifact.backend) == ("shared", "fp32", "onnxruntime"):
            return artifact
    raise BundleError("the bundle has no shared fp32 graph to quantize; export the network again")


def verified(apart: Mapping[tuple[str, str], Apart], signature: Signature, options: Int8Options) -> list[Row]:
    """Guard against broken graphs: rows of mean errors against the FP32 graph."""
    rows = []
    for precision in PRECISIONS.values():
        for task in signature.tasks:
            found = apart[precision, task.name]
            allowed = options.tolerance * found.scale
            if not found.mean <= allowed:
                raise VerificationError(
                    f"{precision}.onnx, task {task.name!r}: its mean error against fp32.onnx is {found.mean:.3g} (allowed "
                    f"{allowed:.3g}, where an answer that does not look at the image is {found.scale:.3g} off); "
                    "calibrate on images like those that the network will see, or set budgets with --max-drop"
                )
            rows.append(
                Row(
                    artifact=f"{precision}.onnx",
                    task=task.name,
                    samples=found.samples,
                    max_error=found.largest,
                    mean_error=found.mean,
                    tolerance=allowed,
                    agreement=None,
                    error=found.mean,
                    excess=found.mean / allowed if allowed else 0.0,
                    against="fp32.onnx",
                )
            )
    return rows


def _write(folder: Path, manifest: Manifest, precision: str, content: bytes, details: dict[str, Any]) -> list[Artifact]:
    """Write the shared graph of a precision and, where the bundle has FP32 ones, one a task; return their entries."""
    written = []
    for artifact in manifest.artifacts:
        if (artifact.precision, artifact.backend) != ("fp32", "onnxruntime"):
            continue
        alone = artifact.role == "separate"
        path = f"separate/{artifact.tasks[0]}.{precision}.onnx" if alone else f"{precision}.onnx"
        own = _for_tasks(content, manifest.signature, artifact.tasks) if alone else content
        write_file(folder, path, own)
        written.append(
            replace(
                artifact,
                path=path,
                precision=precision,
                opset=_opset(own),
                sha256=hashlib.sha256(own).hexdigest(),
                size_bytes=len(own),
                details={} if alone else details,
            )
        )
    return written


def _for_tasks(content: bytes, signature: Signature, tasks: Sequence[str]) -> bytes:
    model = onnx.load_from_string(cut(content, tasks))
    onnx.helper.set_model_props(model, {METADATA_KEY: signature.subset(tasks).to_json()})
    alone: bytes = model.SerializeToString(deterministic=True)
    return alone


def _opset(content: bytes) -> int:
    from mtl_deploy.runtime.onnx_format.graph import read_graph

    return int(read_graph(content).opset)


def _with_reference(bundle: Bundle, runnable: bytes, batch: int | None, options: Int8Options) -> Manifest:
    """Add what the INT8 graph gives to the bundle's reference: an INT8 engine must match the graph, not PyTorch."""
    manifest = bundle.manifest
    found = reference.read(bundle)
    if found is None:
        return manifest
    preprocessing = manifest.signature.preprocessing
    given = run_graph(runnable, found.images, preprocessing, batch=batch, threads=options.threads)
    packed, record = reference.pack(found.images, found.outputs, given, found.margins, found.floors)
    write_file(bundle.path, reference.PATH, packed)
    return replace(manifest, reference=record)


def _with(
    manifest: Manifest,
    artifacts: Sequence[Artifact],
    rows: Sequence[Row],
    matrix: AccuracyMatrix,
    record: dict[str, Any],
) -> Manifest:
    paths = {artifact.path for artifact in artifacts}
    return replace(
        manifest,
        artifacts=(*(item for item in manifest.artifacts if item.path not in paths), *artifacts),
        verification=(
            *(row for row in manifest.verification if row["artifact"] not in paths),
            *(row.to_dict() for row in rows),
        ),
        accuracy=matrix.to_dict(),
        calibration=record,
    )
