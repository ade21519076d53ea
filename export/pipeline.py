"""From a checkpoint to a bundle. The only file that knows the order of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime import reference
from mtl_deploy.runtime.bundle import Artifact, Bundle, Manifest
from mtl_deploy.runtime.bundle_writing import check_target, write_manifest, writing
from mtl_deploy.runtime.console import Progress
from mtl_deploy.runtime.errors import WorkError
from mtl_deploy.runtime.signature import Signature

from . import int8
from .engines import Builder, find_builder
from .options import TOLERANCES, Options, tolerance_of
from .target_check import check_targets

if TYPE_CHECKING:
    import onnx_ir as ir

    from mtl_deploy.calibration.half import HalfResult
    from mtl_deploy.runtime.backend import Backend

    from .expected import Expected, Images
    from .graph import Graph
    from .images import VerificationImages
    from .network import Network
    from .verify import Row


def export(options: Options, progress: Progress) -> Bundle:
    """Load, trace, clean, name, type, split, lint, verify, build, bundle.

    Raises:
        MtlError: the input cannot be used (exit code 2), or a step failed (:class:`WorkError`, exit code 1). Nothing is
            left behind then.
    """
    check_target(options.target, force=options.force)
    builder = find_builder(options.engines)
    with progress.step("Starting PyTorch"):
        _set_threads(options.threads)
    from . import opset, passes, split
    from .expected import run_network
    from .graph import variants
    from .images import images_of_another_size, verification_images
    from .network import load_network
    from .provenance import provenance
    from .trace import trace
    from .verify import require_passed

    with progress.step(f"Loading {options.checkpoint}") as say:
        network = load_network(options)
        say(network.description)
    with progress.step("Tracing the network into a graph") as say:
        source = network.loaded.program or network.loaded.network
        size, multiple = (network.preprocessing.height, network.preprocessing.width), network.preprocessing.multiple
        traced = trace(source, *size, opset=options.opset, multiple=multiple)
        say(traced.description)
    model, batch = traced.model, traced.batch
    data = int8.read_data(network, options, progress)
    with progress.step("Merging repeated work, folding constants and BatchNorm") as say:
        merged = passes.merge_copies(model, size if multiple else None)
        passes.clean(model)
        written = opset.write_opset(model, options.opset)
        say(f"{merged.description}; opset {written}")
    with progress.step("Reading images for verification") as say:
        images = verification_images(options, network.preprocessing, batch)
        say(images.description)
    with progress.step("Binding names to outputs by value") as say:
        signature = _bind(model, network, images, batch, options)
        shares = split.sharing(model, size)
        say(shares.description)
    with progress.step(f"Running PyTorch on {len(images.array)} images"):
        samples = [(images.array, run_network(network, signature, images.array, batch))]
        if multiple:
            others = images_of_another_size(network.preprocessing, batch)
            samples.append((others, run_network(network, signature, others, batch)))
        packed, record = _reference(network, signature, batch)
    quantize = None if data is None else int8.quantizer(network, signature, data, batch, options, progress)
    graphs = list(variants(model, "fp32", signature, shares, batch, separate=options.separate))
    if "fp16" in options.precisions:
        with progress.step("Typing FP16") as say:
            half = _half(graphs[0], images, options)
            say(half.description)
        typed, details = _typed(half), half.to_dict()
        graphs += variants(typed, "fp16", signature, shares, batch, separate=options.separate, details=details)
    read = check_targets(graphs, lambda graph: graph.content(), options.targets)
    notes = [*network.notes, *(note for note in (traced.note,) if note), *read]
    rows, artifacts = _verify(graphs, samples, options, progress)
    require_passed(rows)
    manifest = Manifest(
        name=options.target.stem,
        signature=signature,
        artifacts=tuple(artifacts),
        sharing=shares.to_dict(merged),
        verification=tuple(row.to_dict() for row in rows),
        provenance=provenance(network.loaded, options, images, notes),
        reference=record,
    )
    return _write(manifest, graphs, packed, quantize, builder, options, progress)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _bind(
    model: ir.Model, network: Network, images: VerificationImages, batch: int | None, options: Options
) -> Signature:
    """Name the graph's outputs by value, and put preprocessing and decoding around the network, in place."""
    from .bind import bind_by_value
    from .borders import add_decoding, add_preprocessing, rename_outputs
    from .expected import network_input
    from .graph import serialize
    from .passes import infer_shapes

    probe = network_input(images.array[: batch or 8], network.preprocessing)
    with _running(serialize(model), options) as backend:
        names = [spec.name for spec in backend.outputs]
        found = backend.run({backend.inputs[0].name: probe.numpy()}, names)
    outputs = [np.asarray(found[name], np.float32) for name in names]
    references = {name: output.numpy() for name, output in network(probe).items()}
    signature = Signature(network.tasks, network.preprocessing, options.outputs)
    rename_outputs(model, bind_by_value(outputs, references), list(references))
    add_preprocessing(model, signature.preprocessing)
    add_decoding(model, signature)
    infer_shapes(model)
    return signature


def _reference(network: Network, signature: Signature, batch: int | None) -> tuple[bytes, dict[str, Any]]:
    """Make the reference that engines are verified with on a device."""
    from .expected import margins, run_network
    from .images import reference_images
    from .verify import has_margins

    pictures = reference_images(signature, batch)
    expected = run_network(network, signature, pictures, batch)
    outputs = {task.name: expected.outputs(task)[task.name] for task in signature.tasks}
    sure = [task for task in signature.tasks if has_margins(task, signature)]
    leads = {task.name: margins(task, expected.raw[task.name]) for task in sure}
    return reference.pack(pictures, outputs, margins=leads)


def _half(graph: Graph, images: VerificationImages, options: Options) -> HalfResult:
    """Observe the shared FP32 graph on the images, and type it by what was seen."""
    import onnx_ir as ir

    from mtl_deploy.calibration.half import to_half
    from mtl_deploy.calibration.observe import observe

    from .verify import graph_input

    proto = ir.to_proto(graph.model)
    size = graph.batch or 4
    pieces = (images.array[start : start + size] for start in range(0, len(images.array), size))
    inputs = (graph_input(piece, graph.signature.preprocessing) for piece in pieces)
    return to_half(proto, observe(proto, inputs, threads=options.threads))


def _typed(half: HalfResult) -> ir.Model:
    import onnx_ir as ir

    return ir.from_proto(half.model)


def _verify(
    graphs: Sequence[Graph],
    samples: Sequence[tuple[Images, Expected]],
    options: Options,
    progress: Progress,
) -> tuple[list[Row], list[Artifact]]:
    """Run each graph's file beside what PyTorch gave. One file at a time is held in memory."""
    from .graph import require_valid
    from .verify import verify, with_logits

    rows: list[Row] = []
    artifacts: list[Artifact] = []
    for graph in graphs:
        with progress.step(f"Verifying {graph.path}") as say:
            content = graph.content()
            require_valid(content)
            artifacts.append(graph.artifact(content))
            with _running(with_logits(_runnable(graph, content), graph.signature), options) as backend:
                found = verify(
                    graph.path,
                    backend,
                    graph.signature,
                    samples,
                    tolerance=partial(
                        tolerance_of, precision=graph.precision, chosen=options.tolerances, defaults=TOLERANCES
                    ),
                    batch=graph.batch,
                )
            worst = max(found, key=lambda row: row.excess)
            say(f"at most {100 * worst.excess:.2g} % of the error allowed ({worst.task})")
            rows += found
    return rows, artifacts


def _write(
    manifest: Manifest,
    graphs: Sequence[Graph],
    reference: bytes,
    quantize: int8.Quantizer | None,
    builder: Builder | str,
    options: Options,
    progress: Progress,
) -> Bundle:
    """Write the graphs and, from them, the engines; nothing stays if one cannot be built."""
    from .engine_stage import add_engines

    with writing(options.target, force=options.force) as folder:
        with progress.step(f"Writing {options.target}"):
            for graph, artifact in zip(graphs, manifest.artifacts, strict=True):
                content = graph.content()
                if graph.artifact(content) != artifact:
                    raise WorkError(f"{graph.path} is not the file that was verified; please report this")
                file = folder / graph.path
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)
            (folder / str(manifest.reference["path"])).write_bytes(reference)
        if quantize is not None:
            manifest = quantize(folder, manifest)
            made = [artifact for artifact in manifest.artifacts if artifact.precision == "int8"]
            check_targets(made, Bundle(folder, manifest).read, options.targets)
        if isinstance(builder, str):
            notes = [*manifest.provenance["notes"], builder] if builder else manifest.provenance["notes"]
            manifest = replace(manifest, provenance=manifest.provenance | {"notes": notes})
        else:
            manifest = add_engines(folder, manifest, builder, options.tolerances, progress)
        write_manifest(folder, manifest)
    return Bundle(options.target, manifest)


def _runnable(graph: Graph, content: bytes) -> bytes:
    """Return what shows a file's numbers on a processor: an FP16 graph with its rounding written out."""
    if graph.precision != "fp16":
        return content
    import onnx

    from mtl_deploy.calibration.emulate import emulate_half

    emulated: bytes = emulate_half(onnx.load_from_string(content)).SerializeToString()
    return emulated


@contextmanager
def _running(content: bytes, options: Options) -> Iterator[Backend]:
    from mtl_deploy.runtime.onnxruntime_backend import OnnxRuntimeBackend

    with closing(OnnxRuntimeBackend(lambda: content, providers=["CPU"], threads=options.threads)) as backend:
        yield backend
