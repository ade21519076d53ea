"""From a checkpoint to a bundle. The only file that knows the order of the steps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime import reference
from mtl_deploy.runtime.bundle import Bundle, Manifest
from mtl_deploy.runtime.bundle_writing import check_target, write_manifest, writing
from mtl_deploy.runtime.console import Progress
from mtl_deploy.runtime.errors import FallbackWarning, VerificationError, WorkError
from mtl_deploy.runtime.signature import Signature

from . import int8
from .engines import Builder, find_builder
from .options import Options
from .target_check import check_targets

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph
    from .network import Network


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
    from .half_stage import HalfStage
    from .images import images_of_another_size, verification_images
    from .network import load_network
    from .provenance import provenance
    from .reach import unseen_notes
    from .rows import require_passed
    from .trace import trace
    from .verify_stage import describe_stress, stress, verify_graphs

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
    signature = Signature(network.tasks, network.preprocessing, options.outputs)
    with progress.step(f"Running PyTorch on {len(images.array)} images"):
        samples = [(images.array, run_network(network, signature, images.array, batch))]
        if multiple:
            others = images_of_another_size(network.preprocessing, batch)
            samples.append((others, run_network(network, signature, others, batch)))
        packed, record = _reference(network, signature, batch)
    with progress.step("Binding names to outputs by value") as say:
        _bind(model, signature, *samples[0], options)
        shares = split.sharing(model, size)
        say(shares.description)
    quantize = None if data is None else int8.quantizer(network, signature, data, batch, options, progress)
    graphs = list(variants(model, "fp32", signature, shares, batch, separate=options.separate))
    read = check_targets(graphs, lambda graph: graph.content(), options.targets)
    rows, artifacts = verify_graphs(graphs, samples, options, progress)
    require_passed(rows)
    left_out: dict[str, str] = {}
    if "fp16" in options.precisions:
        try:
            half = HalfStage(graphs, samples, shares, options, progress).make()
        except VerificationError as error:
            leave_out("fp16", error, left_out, options)
        else:
            read += [
                note
                for note in check_targets(half.graphs, lambda graph: graph.content(), options.targets)
                if note not in read
            ]
            graphs, rows, artifacts = graphs + half.graphs, rows + half.rows, artifacts + half.artifacts
    with progress.step("Looking at what verification cannot see") as say:
        stressed = stress([graph for graph in graphs if graph.role == "shared"], network, batch, options)
        say(f"on stress pictures, which decide nothing, off by {describe_stress(stressed)} of the spread")
        unseen = unseen_notes(network, images.array, rows, options)
    notes = [*network.notes, *(note for note in (traced.note,) if note), *read, *unseen]
    manifest = Manifest(
        name=options.target.stem,
        signature=signature,
        artifacts=tuple(artifacts),
        sharing=shares.to_dict(merged),
        verification=tuple(row.to_dict() for row in rows),
        provenance=provenance(network.loaded, options, images, notes) | {"stress": stressed, "left_out": left_out},
        reference=record,
    )
    return _write(manifest, graphs, packed, quantize, builder, options, progress)


def leave_out(precision: str, error: VerificationError, left_out: dict[str, str], options: Options) -> None:
    """Go on without a precision that nobody asked for by name, and say why.

    Raises:
        VerificationError: it was asked for; nothing is written then.
    """
    if precision in options.named:
        raise VerificationError(f"{error}. Nothing was written") from error
    left_out[precision] = str(error)
    warnings.warn(f"{precision} is left out of the bundle: {error}", FallbackWarning, stacklevel=2)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _bind(model: ir.Model, signature: Signature, images: Images, expected: Expected, options: Options) -> None:
    """Name the graph's outputs by value, and put preprocessing and decoding around the network, in place."""
    from .bind import bind_by_value
    from .borders import add_decoding, add_preprocessing, rename_outputs
    from .expected import EXACT, network_input
    from .graph import serialize
    from .passes import infer_shapes
    from .verify_stage import running

    fixed = model.graph.inputs[0].shape
    batch = fixed[0] if fixed is not None and isinstance(fixed[0], int) else EXACT
    probe = network_input(images[:batch], signature.preprocessing)
    with running(serialize(model), options) as backend:
        names = [spec.name for spec in backend.outputs]
        found = backend.run({backend.inputs[0].name: probe.numpy()}, names)
    outputs = [np.asarray(found[name], np.float32) for name in names]
    references = {name: array[:batch] for name, array in expected.raw.items()}
    exact = {name: array[:batch] for name, array in expected.exact.items()} if expected.known[:batch].all() else None
    rename_outputs(model, bind_by_value(outputs, references, exact or None), list(references))
    add_preprocessing(model, signature.preprocessing)
    add_decoding(model, signature)
    infer_shapes(model)


def _reference(network: Network, signature: Signature, batch: int | None) -> tuple[bytes, dict[str, Any]]:
    """Make the reference that engines are verified with on a device."""
    from .errors_of_task import has_margins, noise_floor
    from .expected import margins, run_network
    from .images import reference_images

    pictures = reference_images(signature, batch)
    expected = run_network(network, signature, pictures, batch)
    truth = {task.name: expected.outputs(task, exact=True)[task.name] for task in signature.tasks}
    outputs = {name: array.astype(signature.dtype(name)) for name, array in truth.items()}
    sure = [task for task in signature.tasks if has_margins(task, signature)]
    leads = {task.name: margins(task, expected.raw[task.name]) for task in sure}
    floors = {task.name: noise_floor(task, signature, expected) for task in signature.tasks}
    return reference.pack(pictures, outputs, margins=leads, floors=floors)


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
