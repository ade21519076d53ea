"""Calibrating an existing bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest
from mtl_deploy.runtime.bundle.writing import copy_files, updating, write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.files import disk

from .options import Int8Options
from .stage import add_int8


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
    """Give a bundle INT8 graphs.

    Args:
        source: the bundle.
        images: see :func:`~mtl_deploy.calibration.data.dataset.load_data`.
        options: how.
        labels: a CSV file of labels.
        output: another bundle's folder to write to; None: the bundle itself, which is replaced whole.
        force: replace ``output`` where it exists.
        progress: told where the work is.

    Raises:
        MtlError: a step failed. The bundle is as it was then.
    """
    with updating(source, output, force=force, inputs=(images, labels)) as (bundle, claim):
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
            write_manifest(folder, manifest)
    return Bundle(claim.target, manifest)


def without_stale_engines(folder: Path, manifest: Manifest) -> Manifest:
    """Remove engines whose graph has changed since they were built."""
    graphs = {artifact.path: artifact.sha256 for artifact in manifest.artifacts}
    stale = [
        artifact.path
        for artifact in manifest.artifacts
        if artifact.backend == "tensorrt"
        and graphs.get(str(artifact.details.get("source"))) != artifact.details.get("source_sha256")
    ]
    if not stale:
        return manifest
    for path in stale:
        disk.remove(folder / path)
    note = f"{len(stale)} engines were built from the former INT8 graphs and are gone: build them again with mtl-export BUNDLE"
    notes = [*manifest.provenance.get("notes", []), note]
    return replace(
        manifest,
        artifacts=tuple(artifact for artifact in manifest.artifacts if artifact.path not in stale),
        verification=tuple(row for row in manifest.verification if row["artifact"] not in stale),
        provenance=manifest.provenance | {"notes": notes},
    )
