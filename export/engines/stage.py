"""Adding engines to a bundle: to one that is being written, or to an existing one, which needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.export.targets.check import check_targets, read_by
from mtl_deploy.export.targets.linter import Target
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, Manifest, open_bundle
from mtl_deploy.runtime.bundle.signing import load_signer
from mtl_deploy.runtime.bundle.writing import check_target, copy_files, updating, write_file, write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.dates import created

from .bundle_engines import Builder, build_engines, find_builder
from .check import verify_engines


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
    preprocessing = manifest.signature.preprocessing
    size = (preprocessing.height, preprocessing.width) if preprocessing.multiple else None
    for engine, plan in build_engines(manifest.artifacts, bundle.read, builder, progress, size):
        write_file(folder, engine.path, plan)
        engines.append(replace(engine, details=engine.details | {"built": created()}))
    paths = {engine.path for engine in engines}
    kept = [artifact for artifact in manifest.artifacts if artifact.path not in paths]
    return _verified(Bundle(folder, replace(manifest, artifacts=(*kept, *engines))), engines, tolerances, progress)


def _verified(
    bundle: Bundle, engines: Sequence[Artifact], tolerances: Mapping[str, float], progress: Progress
) -> Manifest:
    write_manifest(bundle.path, bundle.manifest)  # the runtime runs what a manifest lists
    found, rows = verify_engines(bundle, engines, tolerances, progress)
    by_path = {engine.path: engine for engine in found}
    earlier = [row for row in bundle.manifest.verification if row["artifact"] not in by_path]
    return replace(
        bundle.manifest,
        artifacts=tuple(by_path.get(artifact.path, artifact) for artifact in bundle.manifest.artifacts),
        verification=(*earlier, *(row.to_dict() for row in rows)),
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
            manifest = _verified(Bundle(folder, manifest), engines, tolerances, progress)
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
