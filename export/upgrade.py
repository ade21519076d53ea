"""``mtl-export --upgrade``: a bundle of an earlier release, with its manifest as this release writes it."""

from __future__ import annotations

from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.bundle.signing import load_signer
from mtl_deploy.runtime.bundle.upgrade import upgraded
from mtl_deploy.runtime.bundle.writing import check_target, copy_files, updating, write_manifest
from mtl_deploy.runtime.console.command import Progress


def upgrade_bundle(source: Path, *, output: Path | None, force: bool, sign: Path | None, progress: Progress) -> Bundle:
    """Write a bundle's manifest anew. All its other files stay as they are, byte for byte, once they are checked.

    Args:
        source: the bundle, of any release so far.
        output: folder of another bundle to write; None: the bundle itself, which is replaced as a whole.
        force: replace ``output`` if it exists.
        sign: an Ed25519 private key to sign the bundle with.
        progress: shows what is being done.

    Raises:
        BundleError: the source is no bundle, of a later release, or a file of it is missing or changed. Nothing is written then.
    """
    signer = None if sign is None else load_signer(sign)
    open_bundle(source)
    if output is not None:
        check_target(output, force=force)
    with (
        progress.step(f"Upgrading {source}"),
        updating(source, output, force=force) as (bundle, claim),
        claim.writing() as folder,
    ):
        for artifact in bundle.manifest.artifacts:
            bundle.read(artifact)
        manifest = upgraded(bundle.manifest)
        copy_files(bundle, folder, share=claim.update)
        write_manifest(folder, manifest)
        if signer is not None:
            signer(folder)
    return Bundle(claim.target, manifest)
