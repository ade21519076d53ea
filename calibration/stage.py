"""INT8 graphs for a bundle: one calibration, two graphs, and what each of them costs each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from mtl_deploy.calibration.accuracy.doubts import doubts
from mtl_deploy.calibration.accuracy.evaluate import Answers, Apart, Evaluation, Source, evaluate
from mtl_deploy.calibration.accuracy.latency import latency_ratio
from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.held_apart import Parts, held_apart, missing_labels
from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.int8.graphs import STYLES, Int8Graph, Int8Graphs
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.observe import cache
from mtl_deploy.calibration.observe.sound_graph import check_graph
from mtl_deploy.calibration.observe.trained import Trained
from mtl_deploy.calibration.search.find_skip import find_skip
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Manifest
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.bundle.writing import write_file
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import VerificationError

from .int8_files import fp32_graph, with_int8, with_parts, with_reference, write_graphs
from .options import Int8Options

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
    trained: Trained | None = None,
) -> Manifest:
    """Calibrate a bundle's FP32 graph, write its INT8 graphs, shared and separate, and measure every task at every precision.

    Args:
        folder: of the bundle that is being written; it holds the FP32 graph.
        manifest: the bundle's manifest so far.
        data: real images, with labels where they are known.
        options: for making INT8 graphs.
        progress: shows the steps.
        pytorch: the network's outputs on the held-out images; None without PyTorch.
        earlier: a bundle whose cached ranges may be reused.
        trained: ranges of a network that was trained for quantization; they are kept where a graph quantizes the same tensors.

    Returns:
        The manifest with the graphs, their verification, the accuracy and the record of the calibration. It is not written yet.

    Raises:
        BundleError: there is no FP32 graph.
        MissedBudgetError: a budget cannot be met; the message names the task.
        WorkError: a graph is broken.
    """
    bundle = Bundle(folder, manifest)
    source = fp32_graph(manifest)
    content = bundle.read(source)
    check_graph(content, manifest.signature, source.path, threads=options.threads)
    parts = held_apart(data, options)
    absent = missing_labels(data, parts[2], manifest.tasks)
    batch = source.batch_min if source.batch_min == source.batch_max else None
    regressions = [task.name for task in manifest.tasks if kind_of(task).corrects_mean]
    graphs = Int8Graphs(content, parts[0].images, manifest.signature, batch, options, regressions)
    key = cache.CacheKey(source.sha256, parts[0].digest)
    ranges = _choose_ranges(graphs, key, earlier, trained, progress)
    skip, search = _search(graphs, ranges.methods, parts, progress)
    others = _others(bundle, content, pytorch)
    variants, measured = _measure(graphs, ranges.methods, skip, others, parts[2], progress)
    if skip:
        search["latency"] = _latency(graphs, ranges.methods, variants["int8-cpu"], parts[2])
    rows = verified(measured.apart, manifest.signature, options)
    artifacts: list[Artifact] = []
    for name, variant in variants.items():
        details = variant.details | ({"search": search} if search else {})
        artifacts += write_graphs(folder, manifest, name, variant.content, details)
    manifest = with_reference(bundle, variants["int8"].runnable, batch, like=content, threads=options.threads)
    packed, record = cache.pack(key, cache.FoundRanges(graphs.ranges, graphs.observed))
    write_file(folder, cache.PATH, packed)
    decoded = manifest.signature.outputs == "decoded"
    record |= ranges.to_dict() | _of_data(replace(data, warnings=(*data.warnings, *absent)), parts)
    record |= {
        "doubts": list(doubts(measured, parts[2], "fp32", decoded=decoded, seed=options.seed)),
        "kept": sorted(skip),
        "budgets": {name: value for name, value in search.items() if name != "trail"},
        "coverage": graphs.coverage(ranges.methods, skip) or _former_coverage(earlier),
    }
    manifest = with_int8(manifest, artifacts, rows, measured.matrix, record)
    return with_parts(folder, manifest, parts[2].images[:8], threads=options.threads, progress=progress)


@dataclass(frozen=True)
class _Ranges:
    """How the ranges were chosen.

    Attributes:
        state: whether they were found now or reused, for people.
        methods: by style, the method that the graph's ranges come from.
        errors: by style and method, the error of each method that was tried; empty where the user chose the method.
    """

    state: str
    methods: dict[str, str]
    errors: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return their part of the manifest's record."""
        return {
            "method": _described(self.methods, {}),
            "methods": {PRECISIONS[style]: method for style, method in self.methods.items()},
            "errors": {PRECISIONS[style]: found for style, found in self.errors.items()},
            "ranges": self.state,
        }


def _choose_ranges(
    graphs: Int8Graphs, key: cache.CacheKey, earlier: Bundle | None, trained: Trained | None, progress: Progress
) -> _Ranges:
    with progress.step("Calibrating") as say:
        state = _find_ranges(graphs, key, earlier, progress)
        if trained is not None:
            kept, whole = graphs.keep(trained)
            state += f"; {kept} of {whole} tensors keep the range that the network was trained with"
        say(state)
    with progress.step("Choosing ranges") as say:
        methods, errors = graphs.choose_methods()
        say(_described(methods, errors))
    return _Ranges(state, methods, errors)


def _search(
    graphs: Int8Graphs, methods: Mapping[str, str], parts: Parts, progress: Progress
) -> tuple[frozenset[str], dict[str, Any]]:
    """Return the layers that stay in higher precision, and the record of the search; both are empty without budgets."""
    calibration, searched, held_out = parts
    if searched is None:
        return frozenset(), {}
    with progress.step("Searching for layers that must stay in higher precision") as say:
        sets = (calibration, searched)
        skip, record = find_skip(graphs, methods, sets, held_out, graphs.signature, graphs.options, progress)
        say(f"{counted(len(skip), 'layer')}, {record['outcome']}")
    return skip, record


def _measure(
    graphs: Int8Graphs,
    methods: Mapping[str, str],
    skip: frozenset[str],
    others: Mapping[str, Source],
    held_out: CalibrationData,
    progress: Progress,
) -> tuple[dict[str, Int8Graph], Evaluation]:
    """Make both INT8 graphs and run them and the others on the held-out images."""
    with progress.step("Measuring every task at every precision") as say:
        variants = {PRECISIONS[style]: graphs.build(style, methods[style], skip) for style in STYLES}
        sources = {**others, **{name: variant.runnable for name, variant in variants.items()}}
        options = graphs.options
        measured = evaluate(
            sources, held_out, graphs.signature, batch=graphs.batch, threads=options.threads, seed=options.seed
        )
        say(f"on {len(held_out.images)} held-out images")
    return variants, measured


def _latency(graphs: Int8Graphs, methods: Mapping[str, str], variant: Int8Graph, held_out: CalibrationData) -> float:
    """Return how many times as long the graph for CPUs takes as one with every layer in INT8."""
    everything = graphs.build("cpu", methods["cpu"])
    return latency_ratio(
        variant.content,
        everything.content,
        held_out.images,
        graphs.preprocessing,
        batch=graphs.batch,
        threads=graphs.options.threads,
    )


def _of_data(data: CalibrationData, parts: Parts) -> dict[str, Any]:
    """Return the images' part of the manifest's record."""
    calibration, _, held_out = parts
    return {
        "data": data.source,
        "images": len(calibration.images),
        "held_out": len(held_out.images),
        "warnings": list(data.warnings),
        "left_out": {"files": len(data.skipped), "first": dict(list(data.skipped.items())[:_LISTED])},
    }


def _described(methods: Mapping[str, str], errors: Mapping[str, Mapping[str, float]]) -> str:
    """Name the method that each graph's ranges come from, once where it is the same."""
    if len(set(methods.values())) == 1 and not errors:
        return next(iter(methods.values()))
    texts = []
    for style, method in methods.items():
        figures = ", ".join(f"{name} {error:.2g}" for name, error in errors.get(style, {}).items())
        texts.append(f"{method} for {PRECISIONS[style]}.onnx{f' ({figures})' if figures else ''}")
    return ", ".join(texts)


def _find_ranges(graphs: Int8Graphs, key: cache.CacheKey, earlier: Bundle | None, progress: Progress) -> str:
    """Give the graphs their ranges, from the cache if it is still valid; return where they come from."""
    found, state = (None, "") if earlier is None else cache.read(earlier, key)
    wanted = set(graphs.methods)
    if found is not None and all(wanted <= set(found.ranges.get(style, ())) for style in STYLES):
        graphs.ranges = {style: {name: found.ranges[style][name] for name in graphs.methods} for style in STYLES}
        graphs.observed = found.observed
        return state
    graphs.ranges = graphs.find_ranges(lambda text: progress.update(f"Calibrating: {text}"))
    fresh = f"found on {counted(len(graphs.images), 'image')}"
    return f"{fresh}; {state}" if state and found is None else fresh


def _former_coverage(earlier: Bundle | None) -> list[dict[str, Any]]:
    """Return the coverage that was recorded with the cached ranges: they come without histograms."""
    rows: list[dict[str, Any]] = [] if earlier is None else earlier.manifest.calibration.get("coverage", [])
    return rows


def _others(bundle: Bundle, content: bytes, pytorch: Answers | None) -> dict[str, Source]:
    """Return what INT8 is compared with: PyTorch if it ran, and the graphs of higher precision."""
    found: dict[str, Source] = {} if pytorch is None else {"pytorch": pytorch}
    found["fp32"] = content
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.precision, artifact.backend) == ("shared", "fp16", "onnxruntime"):
            stored = bundle.read(artifact)
            check_graph(stored, bundle.manifest.signature, artifact.path)
            half = onnx.load_from_string(stored)
            found["fp16"] = emulate_half(half).SerializeToString()  # processors would compute it in FP32
    return found


def verified(apart: Mapping[tuple[str, str], Apart], signature: Signature, options: Int8Options) -> list[Row]:
    """Check that no graph is broken; return rows of mean errors against the FP32 graph."""
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
