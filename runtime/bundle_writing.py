"""Writing a bundle: whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .bundle import MANIFEST, Bundle, Manifest
from .errors import OptionError


def check_target(target: Path, *, force: bool) -> None:
    """Refuse a target that may not be written, before any work is done for it.

    Args:
        target: the bundle's folder.
        force: replace an existing bundle. What is not a bundle is never replaced.

    Raises:
        OptionError: ``target`` exists and may not be replaced.
    """
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise OptionError(f"{target} exists; pass --force to replace it, or choose another place with --output")
    empty = target.is_dir() and not any(target.iterdir())
    if not (target / MANIFEST).is_file() and not empty:
        raise OptionError(f"{target} exists and is not a bundle; --force replaces bundles only: move it away")


@contextmanager
def writing(target: Path, *, force: bool) -> Iterator[Path]:
    """Write a bundle whole: yield a temporary sibling folder, and rename it to ``target`` when the block succeeds.

    On any exception, Ctrl-C included, the temporary folder is removed and ``target`` is as it was.

    Raises:
        OptionError: ``target`` may not be replaced (see :func:`check_target`), or cannot be written: no permission,
            a full disk.
    """
    check_target(target, force=force)
    staging = None
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        staging.chmod(0o777 & ~_umask())
        yield staging
        _replace(staging, target)
    except BaseException as error:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
        for folder in made:
            with suppress(OSError):  # not empty: somebody else's by now
                folder.rmdir()
        if isinstance(error, OSError):
            raise OptionError(
                f"cannot write {target}: {error.strerror or error}; nothing was kept: free some space or choose another "
                "place with --output"
            ) from error
        raise


def _replace(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    old = target.rename(retired / target.name)
    try:
        staging.rename(target)
    except BaseException:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into a folder, for people and programs (indented, UTF-8, a newline at the end)."""
    text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def copy_files(bundle: Bundle, folder: Path) -> None:
    """Put a bundle's files, but for its manifest, into another folder: as links to the same content where that is possible.

    Whoever writes one of them anew removes it first, or the older bundle changes too.

    Raises:
        IntegrityError: a file is not the manifest's: nothing damaged is passed on.
    """
    for artifact in bundle.manifest.artifacts:
        bundle.read(artifact)
    for file in bundle.path.rglob("*"):
        place = folder / file.relative_to(bundle.path)
        if file.is_dir():
            place.mkdir(exist_ok=True)
        elif file.name != MANIFEST:
            try:
                os.link(file, place)
            except OSError:
                shutil.copy2(file, place)
