"""The power fails: what was not synced is lost, wholly or in part, in any combination; the bundle is the old or the new one.

A model of a disk notes what the writing code does. At each moment it is asked what may be on the disk: a file's content is there
for sure once the file was synced, an entry of a folder once the folder was; everything else is drawn by chance.
"""

from __future__ import annotations

import errno
import functools
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.writing import copy_files, updating, writing
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.files import disk
from tests.attacks.victims import state
from tests.conftest import write_tiny_bundle

MUST_BE_ZERO = ("targets absent", "targets mixed", "new bundles lost", "faults unseen without syncs")


@dataclass
class Content:
    """A file's content, and whether it is on the disk."""

    data: bytes
    durable: bool = False


@dataclass
class Change:
    """A change of entries, and whether it is on the disk."""

    folders: set[Path]
    apply: Callable[[dict[Path, Any]], None]
    durable: bool = False


@dataclass
class Disk:
    """What was done to a folder, and what of it may be lost.

    Attributes:
        root: the folder.
        seed: of chance.
        syncs: whether syncs have an effect.
    """

    root: Path
    seed: int
    syncs: bool = True
    changes: list[Change] = field(default_factory=list)
    contents: dict[int, Content] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = {
            path: Content(path.read_bytes(), durable=True) if path.is_file() else None for path in self.root.rglob("*")
        }
        self.contents = {path.stat().st_ino: found for path, found in self.start.items() if found is not None}

    def note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Note a call of the module ``disk`` that has just been made."""
        if name in ("copy", "write_new", "open_or_make", "make_folder"):
            path = arguments[1] if name == "copy" else arguments[0]
            content = None
            if name != "make_folder":
                content = self.contents[path.stat().st_ino] = Content(path.read_bytes())  # inode numbers come again
            self._change({path.parent}, lambda tree: self._put(tree, path, content))
        elif name == "link":
            content = self.contents[arguments[1].stat().st_ino]
            self._change({arguments[1].parent}, lambda tree: self._put(tree, arguments[1], content))
        elif name in ("remove", "remove_folder"):
            self._change({arguments[0].parent}, lambda tree: self._drop(tree, arguments[0]))
        elif name in ("rename", "rename_new", "exchange"):
            one, other = arguments
            both = name == "exchange"
            self._change({one.parent, other.parent}, lambda tree: self._move(tree, one, other, both=both))
        elif name == "sync" and self.syncs:
            self._sync(arguments[0])

    def after_a_crash(self, salt: int) -> dict[Path, bytes | None]:
        """Return what is on the disk, by path; None for folders."""
        chance = random.Random(f"{self.seed} {len(self.changes)} {salt}")
        tree = dict(self.start)
        for change in self.changes:
            if change.durable or chance.random() < 0.5:
                change.apply(tree)
        lost = {id(content): chance.choice((0.0, 0.5, 1.0)) for content in tree.values() if content is not None}
        return {
            path: None
            if content is None
            else content.data
            if content.durable
            else _part(content.data, lost[id(content)])
            for path, content in tree.items()
        }

    def _change(self, folders: set[Path], apply: Callable[[dict[Path, Any]], None]) -> None:
        self.changes.append(Change(folders, apply))

    def _sync(self, path: Path) -> None:
        if not path.is_dir():
            self.contents[path.stat().st_ino].durable = True
            return
        for change in self.changes:
            if path in change.folders:
                change.durable = True

    def _put(self, tree: dict[Path, Any], path: Path, content: Content | None) -> None:
        if path.parent == self.root or path.parent in tree:
            tree[path] = content

    def _drop(self, tree: dict[Path, Any], path: Path) -> None:
        if not any(other.parent == path for other in tree):
            tree.pop(path, None)

    def _move(self, tree: dict[Path, Any], one: Path, other: Path, *, both: bool) -> None:
        if one not in tree or (both and other not in tree) or not (other.parent == self.root or other.parent in tree):
            return
        taken = {path: tree.pop(path) for path in list(tree) if path.is_relative_to(one)}
        displaced = {path: tree.pop(path) for path in list(tree) if path.is_relative_to(other)}
        tree.update({other / path.relative_to(one): content for path, content in taken.items()})
        if both:
            tree.update({one / path.relative_to(other): content for path, content in displaced.items()})


def _part(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


CALLS = ("make_folder", "write_new", "open_or_make", "copy", "link", "remove", "remove_folder", "rename", "rename_new")


@contextmanager
def noted(model: Disk, after: Callable[[], None]) -> Iterator[None]:
    """Let a model note all calls of the module ``disk``; ``after`` is called after each."""
    names = (*CALLS, "exchange", "sync")
    originals = {name: getattr(disk, name) for name in names}

    def wrapped(name: str) -> Callable[..., Any]:
        @functools.wraps(originals[name])
        def call(*arguments: Any) -> Any:
            result = originals[name](*arguments)
            model.note(name, arguments, result)
            after()
            return result

        return call

    try:
        for name in names:
            setattr(disk, name, wrapped(name))
        yield
    finally:
        for name, original in originals.items():
            setattr(disk, name, original)


@contextmanager
def no_exchange() -> Iterator[None]:
    """Let no folder be exchanged, as on a mount point."""
    original = disk.exchange

    def refused(one: Path, other: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    try:
        disk.exchange = refused
        yield
    finally:
        disk.exchange = original


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Let the power fail after each call, 200 times over at scale 1, for a new bundle, a replaced one and an updated one."""
    figures = Counter(dict.fromkeys(("power failures", *MUST_BE_ZERO), 0))
    new = write_tiny_bundle(folder / "new.mtl", work=1)
    old = write_tiny_bundle(folder / "old.mtl", precisions=("fp32",))
    rounds = max(2, round(200 * scale))
    for kind in ("new", "replaced", "updated"):
        for exchanged in (True, False) if kind != "new" else (True,):
            _attack(folder, kind, (old, new), rounds, seed, figures, exchanged=exchanged, syncs=True)
    unsynced: Counter[str] = Counter()
    _attack(folder, "replaced", (old, new), 4, seed, unsynced, exchanged=True, syncs=False)
    figures["faults unseen without syncs"] = int(not (unsynced["targets mixed"] and unsynced["new bundles lost"]))
    return dict(figures)


def _attack(
    folder: Path,
    kind: str,
    bundles: tuple[Path, Path],
    rounds: int,
    seed: int,
    figures: Counter[str],
    *,
    exchanged: bool,
    syncs: bool,
) -> None:
    old, new = bundles
    place, crashed = folder / "place", folder / "crashed"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    target = place / "model.mtl"
    if kind != "new":
        shutil.copytree(old, target)
    model = Disk(place, seed, syncs)

    def fail(*, done: bool = False) -> None:
        for salt in range(rounds):
            figures["power failures"] += 1
            _write(crashed, {path.relative_to(place): data for path, data in model.after_a_crash(salt).items()})
            try:
                found = state(crashed / "model.mtl")
            except BundleError as error:
                figures["targets mixed"] += 1
                if syncs:
                    print(f"{kind}: {error}", file=sys.stderr)
                continue
            figures["targets absent"] += found is None and kind != "new"
            figures["new bundles lost"] += done and found != expected

    before = state(target)
    if exchanged:
        with noted(model, fail):
            _command(kind, target, new)
    else:
        with no_exchange(), noted(model, fail):
            _command(kind, target, new)
    expected = state(target)
    assert expected is not None
    assert expected != before
    fail(done=True)


def _command(kind: str, target: Path, new: Path) -> None:
    from dataclasses import replace

    from mtl_deploy.runtime.bundle.manifest import open_bundle
    from mtl_deploy.runtime.bundle.writing import write_file, write_manifest

    bundle = open_bundle(new)
    if kind != "updated":
        with writing(target, force=True) as staged:
            copy_files(bundle, staged)
            write_manifest(staged, bundle.manifest)
        return
    with updating(target, None, force=False) as (own, claim), claim.writing() as staged:
        copy_files(own, staged, share=True)
        changed = bundle.manifest.artifacts[0]
        write_file(staged, changed.path, bundle.read(changed))
        rest = [artifact for artifact in own.manifest.artifacts if artifact.path != changed.path]
        write_manifest(staged, replace(own.manifest, artifacts=(changed, *rest)))


def _write(folder: Path, files: dict[Path, bytes | None]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in sorted(files):
        data = files[path]
        if data is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(data)
