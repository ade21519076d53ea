"""From a checkpoint to a bundle. The only file that knows the order of the steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_deploy.export.engines.bundle_engines import Builder, find_builder
from mtl_deploy.export.targets.check import check_targets
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest
from mtl_deploy.runtime.bundle.signing import load_signer
from mtl_deploy.runtime.bundle.writing import Claim, claimed, write_file, write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import FallbackWarning, VerificationError, WorkError

from . import int8
from .options.export import Options

if TYPE_CHECKING:
    from mtl_deploy.export.graph.variants import GraphVariant


def export(options: Options, progress: Progress) -> Bundle:
    """Load, trace, clean, name, type, split, lint, verify, build, bundle.

    Raises:
        MtlError: the input cannot be used (exit code 2), or a step failed (:class:`WorkError`, exit code 1). Nothing is
            left behind then.
    """
    inputs = (options.checkpoint, options.images, options.calibration_data, options.labels)
    with claimed(options.target, force=options.force, inputs=inputs) as claim:
        return before_writing(options, progress)(claim)


def before_writing(options: Options, progress: Progress) -> Callable[[Claim], Bundle]:
    """Do all the work of an export but for its writing, which the function that is returned does."""
    signer = None if options.sign is None else load_signer(options.sign)
    builder = find_builder(options.engines)
    with progress.step("Starting PyTorch"):
        _set_threads(options.threads)
    from mtl_deploy.export.fp16.stage import HalfStage
    from mtl_deploy.export.verification.reach import unseen_notes
    from mtl_deploy.export.verification.rows import require_passed
    from mtl_deploy.export.verification.stage import describe_stress, stress, verify_graphs

    from .prepare import prepare
    from .provenance import provenance

    made = prepare(options, progress)
    graphs = made.graphs
    read = check_targets(graphs, lambda graph: graph.content(), options.targets)
    rows, artifacts = verify_graphs(graphs, made.samples, options, progress)
    require_passed(rows)
    left_out: dict[str, str] = {}
    if "fp16" in options.precisions:
        try:
            half = HalfStage(graphs, made.samples, made.shares, options, progress).make()
        except VerificationError as error:
            leave_out("fp16", error, left_out, options)
        else:
            more = check_targets(half.graphs, lambda graph: graph.content(), options.targets)
            read = list(dict.fromkeys([*read, *more]))
            graphs, rows, artifacts = graphs + half.graphs, rows + half.rows, artifacts + half.artifacts
    with progress.step("Looking at what verification cannot see") as say:
        shared = [graph for graph in graphs if graph.role == "shared"]
        stressed = stress(shared, made.network, made.batch, options)
        say(f"on stress pictures, which decide nothing, off by {describe_stress(stressed)} of the spread")
        unseen = unseen_notes(made.network, made.signature, made.images.array, rows, options)
    notes = [*made.notes, *read, *unseen]
    manifest = Manifest(
        name=options.target.stem,
        signature=made.signature,
        artifacts=tuple(artifacts),
        sharing=made.shares.to_dict(made.merged),
        verification=tuple(row.to_dict() for row in rows),
        provenance=provenance(made.network.loaded, options, made.images, notes)
        | {"stress": stressed, "left_out": left_out},
        reference=made.reference[1],
    )
    packed = made.reference[0]
    return lambda claim: _write(claim, manifest, graphs, packed, made.quantize, builder, signer, options, progress)


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


def _write(
    claim: Claim,
    manifest: Manifest,
    graphs: Sequence[GraphVariant],
    reference: bytes,
    quantize: int8.Quantizer | None,
    builder: Builder | str,
    signer: Callable[[Path], None] | None,
    options: Options,
    progress: Progress,
) -> Bundle:
    """Write the graphs and, from them, the engines; nothing stays if one cannot be built."""
    from mtl_deploy.export.engines.stage import add_engines

    with claim.writing() as folder:
        with progress.step(f"Writing {options.target}"):
            for graph, artifact in zip(graphs, manifest.artifacts, strict=True):
                content = graph.content()
                if graph.artifact(content) != artifact:
                    raise WorkError(f"{graph.path} is not the file that was verified; please report this")
                write_file(folder, graph.path, content)
            write_file(folder, str(manifest.reference["path"]), reference)
        if quantize is not None:
            manifest = _quantized(quantize, folder, manifest, options)
            made = [artifact for artifact in manifest.artifacts if artifact.precision == "int8"]
            check_targets(made, Bundle(folder, manifest).read, options.targets)
        if isinstance(builder, str):
            notes = [*manifest.provenance["notes"], builder] if builder else manifest.provenance["notes"]
            manifest = replace(manifest, provenance=manifest.provenance | {"notes": notes})
        else:
            manifest = add_engines(folder, manifest, builder, options.tolerances, progress)
        write_manifest(folder, manifest)
        if signer is not None:
            signer(folder)
    return Bundle(options.target, manifest)


def _quantized(quantize: int8.Quantizer, folder: Path, manifest: Manifest, options: Options) -> Manifest:
    """Add the INT8 graphs, or the reason why there are none where nobody asked for them by name."""
    left_out: dict[str, str] = {}
    try:
        return quantize(folder, manifest)
    except VerificationError as error:
        leave_out("int8", error, left_out, options)
    return replace(manifest, provenance=manifest.provenance | {"left_out": manifest.provenance["left_out"] | left_out})
