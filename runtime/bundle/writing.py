"""Writing a bundle: the files that go into its folder, before it is moved into place as a whole."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.text import as_unicode

from .manifest import MANIFEST, SIGNATURE_FILE, Bundle, Manifest, digest, open_bundle
from .replacing.claims import Claim, check_target, claimed, is_signed, warn_unsigned, writing
from .replacing.early import EarlyFiles
from .replacing.in_place import own_files

__all__ = [
    "Claim",
    "EarlyFiles",
    "check_target",
    "claimed",
    "copy_files",
    "updating",
    "write_file",
    "write_manifest",
    "write_hashed",
    "writing",
]


@contextmanager
def updating(
    source: Path, output: Path | None, *, force: bool, inputs: Iterable[Path | None] = ()
) -> Iterator[tuple[Bundle, Claim]]:
    """Claim a bundle to replace it by one made from it, or another place for that one.

    Args:
        source: the bundle.
        output: another bundle's folder to write to; None: the bundle itself.
        force: replace ``output`` where it exists.
        inputs: other files and folders that the work reads.

    Yields:
        the bundle, which nobody else can write meanwhile, and the claim to write the new one with.

    Raises:
        BundleError: the source is no bundle.
        OptionError: see :func:`~mtl_deploy.runtime.bundle.replacing.claims.claimed`; or one of the two places is inside the other.
    """
    target = open_bundle(source).path if output is None else output
    here, there = (Path(os.path.realpath(path)) for path in (open_bundle(source).path, target))
    if there != here and there.is_relative_to(here):
        raise OptionError(f"{target} lies in the bundle {source} itself; choose another place with --output")
    itself = output is None or (there == here and force)
    outside = () if itself else (source, *inputs)  # an update keeps all files of the folder
    with claimed(target, force=force, update=itself, inputs=outside) as claim:
        was_signed = is_signed(here) and not is_signed(there)  # the claim warns about its own target
        yield open_bundle(source), claim
        if was_signed and not is_signed(claim.folder):
            warn_unsigned(target)


def write_file(folder: Path, path: str, content: bytes, sha: hashlib._Hash | None = None) -> None:
    """Write a file of a bundle that is being written; an existing one is unlinked, and keeps its content under its other names.

    Args:
        folder: the bundle's.
        path: of the file in it.
        content: its bytes.
        sha: is given the bytes as they are written.
    """
    file = folder / path
    for parent in reversed(file.parents):
        if parent.is_relative_to(folder) and not parent.exists():
            disk.make_folder(parent)
    disk.remove(file)  # it may be a link to the older bundle's file
    disk.write_new(file, content, sha)


def write_hashed(folder: Path, path: str, content: bytes) -> str:
    """Write a file of a bundle as :func:`write_file` does, and return its SHA-256 in hexadecimal, found while it was written."""
    sha = hashlib.sha256()
    write_file(folder, path, content, sha)
    return sha.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    r"""Write ``manifest.json`` into a folder, for people and programs (indented, UTF-8, a newline at the end).

    Bytes of file names that are not UTF-8 are written as text, such as ``\xff``.
    """
    text = as_unicode(json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False, allow_nan=False), json=True)
    write_file(folder, MANIFEST, (text + "\n").encode())


def copy_files(bundle: Bundle, folder: Path, *, share: bool = False) -> None:
    """Copy a bundle's files, except for the manifest and its signature, into another folder.

    Args:
        bundle: the one to copy.
        folder: a new folder.
        share: hard-link the files instead of copying them, where that is possible: for a folder that replaces the bundle.

    Raises:
        BundleError: a file is missing.
        IntegrityError: a file does not match the manifest: nothing damaged is passed on.
    """
    hashes = {artifact.path: artifact.sha256 for artifact in bundle.manifest.files}
    for own in own_files(bundle.path):
        path, source, target = own.as_posix(), bundle.path / own, folder / own
        link = share and source.is_symlink() and path not in hashes  # one of the user's
        if path in (MANIFEST, SIGNATURE_FILE) or not (link or _may_be_copied(source)):
            continue
        for parent in reversed(target.parents):
            if not parent.exists():
                disk.make_folder(parent)
        if link:
            disk.symlink(str(source.readlink()), target)
            continue
        copied = _place(source, target, share=share)
        sha256 = hashes.pop(path, None)
        if sha256 is not None and (copied or digest(target)) != sha256:  # displaced for the moment, or damaged
            write_file(folder, path, bundle.read_checked(path, sha256))
    for path, sha256 in hashes.items():
        write_file(folder, path, bundle.read_checked(path, sha256))


def _place(source: Path, target: Path, *, share: bool) -> str | None:
    """Link or copy a file; return its SHA-256 if its bytes were written."""
    if share and not source.is_symlink():
        try:
            disk.link(source, target)
        except OSError:
            pass
        else:
            return None
    return disk.copy(source, target)


def _may_be_copied(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:  # a link to nothing
        return False
