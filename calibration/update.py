"""Adding INT8 graphs to an existing bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest
from mtl_deploy.runtime.bundle.writing import copy_files, updating, write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.files import disk

from .options import Int8Options
from .search.budgets import check_budgets
from .stage import add_int8
from .timing import add_measurement


def calibrate_bundle(
    source: Path,
    images: Path,
    options: Int8Options,
    *,
    labels: Path | None,
    output: Path | None,
    force: bool,
    progress: Progress,
) -> Bundle:
    """Add INT8 graphs to a bundle.

    Args:
        source: the bundle.
        images: see :func:`~mtl_deploy.calibration.data.dataset.load_data`.
        options: for making INT8 graphs.
        labels: likewise.
        output: folder of another bundle to write to; None: the bundle itself, which is replaced as a whole.
        force: replace ``output`` if it exists.
        progress: shows the steps.

    Raises:
        MtlError: a step failed; the bundle is unchanged then.
    """
    with updating(source, output, force=force, inputs=(images, labels)) as (bundle, claim):
        if options.budgets is not None:
            check_budgets(options.budgets, bundle.manifest.tasks)
        with progress.step(f"Reading {images}") as say:
            preprocessing = bundle.manifest.signature.preprocessing
            data = load_data(
                images, preprocessing, bundle.manifest.tasks, samples=options.samples, seed=options.seed, labels=labels
            )
            say(data.source)
        with claim.writing() as folder:
            copy_files(bundle, folder, share=claim.update)
            manifest = add_int8(folder, bundle.manifest, data, options, progress, earlier=bundle)
            manifest = without_stale_engines(folder, manifest)
            add_measurement(folder, manifest, options, progress)
            write_manifest(folder, manifest)
    return Bundle(claim.target, manifest)


def without_stale_engines(folder: Path, manifest: Manifest) -> Manifest:
    """Remove engines whose graph has changed since they were built, and return the manifest without them."""
    graphs = {artifact.path: artifact.sha256 for artifact in manifest.files}
    stale = [
        artifact.path
        for artifact in manifest.files
        if artifact.backend == "tensorrt"
        and graphs.get(str(artifact.details.get("source"))) != artifact.details.get("source_sha256")
    ]
    if not stale:
        return manifest
    for path in stale:
        disk.remove(folder / path)
    note = f"removed {counted(len(stale), 'engine')} of the previous INT8 graphs: build again with mtl-export BUNDLE"
    notes = [*manifest.provenance.get("notes", []), note]
    return replace(
        manifest,
        artifacts=tuple(artifact for artifact in manifest.artifacts if artifact.path not in stale),
        parts=tuple(part for part in manifest.parts if part.path not in stale),
        verification=tuple(row for row in manifest.verification if row["artifact"] not in stale),
        provenance=manifest.provenance | {"notes": notes},
    )
