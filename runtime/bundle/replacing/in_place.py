"""A bundle whose folder cannot be exchanged (a mount point, a container image's layer) is replaced file by file.

At any moment, readers find the old bundle or the new one: a file is kept in :data:`FORMER` before a new one displaces it, readers
look there for a file that does not match their manifest, and the manifest comes last. A process that dies on the way leaves what
:func:`recover` needs to finish or undo its work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.manifest import FORMER, MANIFEST, UNLISTED, digest
from mtl_deploy.runtime.files import disk

NEXT = ".mtl-next"
_ADDED = ".added"  # in FORMER: the files that were not there before, one per line


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the paths, relative to a bundle's folder, of all files in it, except those of an unfinished replacement."""
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if not path.parts[0].startswith(".mtl-") and (file.is_symlink() or not file.is_dir()):
            yield path


def replace_files(staged: Path, target: Path) -> None:
    """Replace the bundle in a folder by the staged one. The folder's other files stay as they are.

    Args:
        staged: the folder of the new bundle, synced. Its files are moved, or copied to another file system.
        target: the folder, which holds a bundle or is empty.

    Raises:
        OSError: a step failed; the old bundle is as it was.
    """
    try:
        new = list(own_files(staged))
        gone = _listed(target).difference(new)
        changed = [path for path in new if not _equal(staged / path, target / path)]
        _prepare(staged, target, changed)
        for path in changed:
            if path != Path(MANIFEST):
                _make_parents(target, path)
                disk.rename(target / NEXT / path, target / path)
        _sync_folders(target, changed)
        if Path(MANIFEST) in changed:
            disk.rename(target / NEXT / MANIFEST, target / MANIFEST)
            disk.sync(target)
    except BaseException:
        recover(target)
        raise
    recover(target)
    for path in sorted(gone):  # only the old bundle had them
        disk.remove(target / path)
    folders = {parent for path in gone for parent in list(path.parents)[:-1]} | {Path("separate")}
    for folder in sorted(folders, reverse=True):  # inner ones first
        with suppress(OSError):  # not there, or not empty
            disk.remove_folder(target / folder)


def recover(target: Path) -> bool:
    """Finish or undo a replacement that stopped on its way; return whether there was one.

    The manifest decides: where it is the old one, displaced files are restored and added ones removed.
    """
    former, following = target / FORMER, target / NEXT
    if not former.is_dir() and not following.is_dir():
        return False
    hashes = _hashes(target)
    if former.is_dir():
        done = (former / _ADDED).is_file() and not (
            following / MANIFEST
        ).is_file()  # the new manifest has been put in place
        for path in own_files(former):
            if path.name.startswith(_ADDED):
                continue
            sha256 = hashes.get(path.as_posix())
            if _belongs(former / path, target / path, sha256, done=done):
                _make_parents(target, path)
                disk.rename(former / path, target / path)
        listed = _listed(target)
        for path in _added(former):
            if path not in listed:
                with suppress(OSError):
                    disk.remove(target / path)
        _sync_folders(target, own_files(former))
    disk.remove_tree(following)
    disk.remove_tree(former)
    return True


def _prepare(staged: Path, target: Path, changed: list[Path]) -> None:
    """Move the new files to the target's file system, and give the old ones a second name; both are synced."""
    for folder in (NEXT, FORMER):
        disk.make_folder(target / folder)
    for path in changed:
        _make_parents(target / NEXT, path)
        _move(staged / path, target / NEXT / path)
    present = [path for path in changed if (target / path).is_file()]
    for path in present:
        _make_parents(target / FORMER, path)
        if path != Path(MANIFEST):
            try:
                disk.link(target / path, target / FORMER / path)
            except OSError:
                disk.copy(target / path, target / FORMER / path)
    added = [path.as_posix() for path in changed if path not in present]
    disk.write_new(target / FORMER / f"{_ADDED}.partial", "\n".join(added).encode())
    disk.rename(target / FORMER / f"{_ADDED}.partial", target / FORMER / _ADDED)  # whole, or not at all
    disk.sync_tree(target / NEXT)
    disk.sync_tree(target / FORMER)
    disk.sync(target)


def _belongs(former: Path, present: Path, sha256: str | None, *, done: bool) -> bool:
    """Return whether to restore a displaced file: it is the manifest's, or the manifest is the old one and does not list it."""
    if sha256 is None:
        return not done
    return _digest(present) != sha256 and _digest(former) == sha256


def _hashes(folder: Path) -> dict[str, str]:
    return {str(record.get("path")): str(record.get("sha256")) for record in _records(folder)}


def _listed(folder: Path) -> set[Path]:
    """Return the files that a bundle's manifest names, and itself; nothing where there is none that can be read."""
    records = _records(folder)
    found = {Path(str(record["path"])) for record in records if isinstance(record.get("path"), str)}
    inside = {path for path in found if not path.is_absolute() and ".." not in path.parts}
    return inside | ({Path(MANIFEST), *map(Path, UNLISTED)} if records else set())


def _records(folder: Path) -> list[Mapping[str, Any]]:
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        records = [*data["artifacts"], *data.get("parts", ()), data.get("reference"), data.get("calibration")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [record for record in records if isinstance(record, Mapping)]


def _added(former: Path) -> list[Path]:
    try:
        lines = (former / _ADDED).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [Path(line) for line in lines if line]


def _move(source: Path, target: Path) -> None:
    try:
        disk.rename_new(source, target)
    except OSError:  # another file system
        disk.copy(source, target)


def _make_parents(folder: Path, path: Path) -> None:
    for parent in reversed((folder / path).parents):
        if parent.is_relative_to(folder) and not parent.exists():
            disk.make_folder(parent)


def _sync_folders(target: Path, paths: Any) -> None:
    for folder in sorted({(target / path).parent for path in paths} | {target}):
        if folder.is_dir():
            disk.sync(folder)


def _equal(one: Path, other: Path) -> bool:
    if one.is_symlink() and other.is_symlink():
        return one.readlink() == other.readlink()
    return one.is_file() and other.is_file() and _digest(one) == _digest(other)


def _digest(file: Path) -> str | None:
    try:
        return digest(file)
    except OSError:
        return None
