"""Adding engines to a bundle: to one that is being written, or to an existing one, which needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.export.targets.check import check_targets, read_by
from mtl_deploy.export.targets.linter import Target
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Manifest, Part, open_bundle
from mtl_deploy.runtime.bundle.signing import load_signer
from mtl_deploy.runtime.bundle.writing import check_target, copy_files, updating, write_file, write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.dates import created

from .bundle_engines import Builder, Graph, build_engines, find_builder
from .check import verify_engines, verify_parts


def add_engines(
    folder: Path, manifest: Manifest, builder: Builder, tolerances: Mapping[str, float], progress: Progress
) -> Manifest:
    """Build an engine from each graph of a bundle, and verify those that run here.

    Args:
        folder: of the bundle that is being written; it holds graphs and reference. Engines are written to it one by one.
        manifest: without engines.
        builder: builds the engines.
        tolerances: the user's, by precision.
        progress: shows what is being done.

    Returns:
        The manifest with engines. It is not written.
    """
    bundle = Bundle(folder, manifest)
    engines: list[Artifact] = []
    parts: list[Part] = []
    preprocessing = manifest.signature.preprocessing
    size = (preprocessing.height, preprocessing.width) if preprocessing.multiple else None
    for engine, plan in build_engines(manifest.artifacts, bundle.read, builder, progress, size):
        write_file(folder, engine.path, plan)
        engines.append(_dated(engine))
    precisions = {engine.precision for engine in engines if engine.role == "shared"}
    graphs = [part for part in manifest.parts if part.backend == "onnxruntime" and part.precision in precisions]
    for part, plan in build_engines(graphs, bundle.read, builder, progress, size) if graphs else ():
        write_file(folder, part.path, plan)
        parts.append(_dated(part))
    paths = {engine.path for engine in (*engines, *parts)}
    kept = [artifact for artifact in manifest.artifacts if artifact.path not in paths]
    others = [part for part in manifest.parts if part.path not in paths]
    made = replace(manifest, artifacts=(*kept, *engines), parts=(*others, *parts))
    return _verified(Bundle(folder, made), engines, parts, tolerances, progress)


def _dated(engine: Graph) -> Graph:
    return replace(engine, details=engine.details | {"built": created()})


def _verified(
    bundle: Bundle,
    engines: Sequence[Artifact],
    parts: Sequence[Part],
    tolerances: Mapping[str, float],
    progress: Progress,
) -> Manifest:
    write_manifest(bundle.path, bundle.manifest)  # the runtime runs what a manifest lists
    found, rows = verify_engines(bundle, engines, tolerances, progress)
    in_parts, part_rows = verify_parts(bundle, parts, tolerances, progress)
    by_path = {engine.path: engine for engine in found}
    parts_by_path = {part.path: part for part in in_parts}
    again = {*by_path, *(row.artifact for row in part_rows)}
    earlier = [row for row in bundle.manifest.verification if row["artifact"] not in again]
    return replace(
        bundle.manifest,
        artifacts=tuple(by_path.get(artifact.path, artifact) for artifact in bundle.manifest.artifacts),
        parts=tuple(parts_by_path.get(part.path, part) for part in bundle.manifest.parts),
        verification=(*earlier, *(row.to_dict() for row in (*rows, *part_rows))),
    )


def update_bundle(
    source: Path,
    options: EngineOptions,
    *,
    output: Path | None,
    force: bool,
    sign: Path | None = None,
    verify: bool,
    targets: Sequence[Target],
    tolerances: Mapping[str, float],
    progress: Progress,
) -> Bundle:
    """Build engines for an existing bundle, or verify those that it has on this machine.

    Args:
        source: the bundle.
        options: how engines are built.
        output: folder of another bundle to write; None: the bundle itself, which is replaced as a whole.
        force: replace ``output`` if it exists.
        sign: an Ed25519 private key to sign the bundle with; if nothing here can build engines, the bundle is only signed.
        verify: run the engines that the bundle has, instead of building new ones.
        targets: devices and releases whose parsers must read the graphs.
        tolerances: the user's, by precision.
        progress: shows what is being done.

    Raises:
        OptionError: nothing here can build engines, and nothing else was asked for.
        MtlError: a step failed. The bundle is unchanged then.
    """
    signer = None if sign is None else load_signer(sign)
    bundle = open_bundle(source)
    if output is not None:
        check_target(output, force=force)
    graphs = [artifact for artifact in bundle.manifest.artifacts if artifact.backend == "onnxruntime"]
    notes = check_targets(graphs, bundle.read, targets)
    builder = "" if verify else find_builder(options)
    if isinstance(builder, str) and not verify and signer is None:
        if targets and options.library in ("none", "auto"):
            return replace(bundle, manifest=_noted(bundle.manifest, notes, targets))
        raise OptionError(builder or f"{source} is already a bundle; say with --engine how to build engines for it")
    with updating(source, output, force=force) as (bundle, claim), claim.writing() as folder:
        manifest = _noted(bundle.manifest, notes, targets)
        copy_files(bundle, folder, share=claim.update)
        if isinstance(builder, str) and verify:
            engines = [artifact for artifact in manifest.artifacts if artifact.backend == "tensorrt"]
            if not engines:
                raise OptionError(f"{source} has no engines to verify; build some with --engine")
            parts = [part for part in manifest.parts if part.backend == "tensorrt"]
            manifest = _verified(Bundle(folder, manifest), engines, parts, tolerances, progress)
        elif not isinstance(builder, str):
            manifest = add_engines(folder, manifest, builder, tolerances, progress)
        write_manifest(folder, manifest)
        if signer is not None:
            signer(folder)
    return Bundle(claim.target, manifest)


def _noted(manifest: Manifest, notes: Sequence[str], targets: Sequence[Target]) -> Manifest:
    earlier = manifest.provenance.get("notes", [])
    added = [*earlier, *(note for note in notes if note not in earlier)]
    checked = {record["name"]: record for record in manifest.provenance.get("targets", [])}
    graphs = [artifact for artifact in manifest.artifacts if artifact.backend == "onnxruntime"]
    checked |= {record["name"]: record for record in read_by(targets, graphs)}
    more = {"targets": list(checked.values())} if checked else {}
    return replace(manifest, provenance=manifest.provenance | {"notes": added} | more)
