"""Others use the same path at the same time: what appears there stays, one writer goes on, and a reader gets one whole bundle."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import copy_files, write_manifest, writing
from mtl_deploy.runtime.errors import MtlError, OptionError
from mtl_deploy.runtime.files import disk
from tests.attacks.victims import state
from tests.conftest import TINY, write_tiny_bundle

MUST_BE_ZERO = (
    "files of others lost",
    "errors that are not ours",
    "two writers at once",
    "writers' bundles mixed",
    "readers that saw a mixture",
    "readers that failed",
)
READS = 20_000
WRITERS = 400


def run(scale: float, seed: int, folder: Path) -> dict[str, int]:
    """Let things appear at each step of a writer, two writers meet, and readers read while a writer replaces."""
    figures = Counter(dict.fromkeys(("things that appeared", "writers", "readings", *MUST_BE_ZERO), 0))
    first = write_tiny_bundle(folder / "first.mtl")
    second = write_tiny_bundle(folder / "second.mtl", work=1)
    for force in (False, True):
        for flags in (True, False):  # with renameat2's flags and without
            _appear(folder, (first, second), scale, seed, figures, force=force, flags=flags)
    _writers(folder, (first, second), max(4, round(WRITERS * scale)), figures)
    for exchanged in (True, False):
        _readers(folder, (first, second), max(100, round(READS * scale)), figures, exchanged=exchanged)
    return dict(figures)


def put(bundle: Path, target: Path, *, force: bool = True) -> None:
    """Write a copy of a bundle to a target, as the commands do."""
    found = open_bundle(bundle)
    with writing(target, force=force) as staged:
        copy_files(found, staged)
        write_manifest(staged, found.manifest)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    (path / "deep").mkdir()
    (path / "deep" / "more.txt").write_text("more of it")


def _link(path: Path) -> None:
    elsewhere = path.parent / "elsewhere"
    _folder(elsewhere)
    path.symlink_to(elsewhere)


THINGS: dict[str, Callable[[Path], None]] = {
    "a folder": _folder,
    "a file": lambda path: path.write_text("a thesis") and None,
    "a link to a folder": _link,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a pipe": lambda path: os.mkfifo(path),
}


def _everything(folder: Path) -> dict[str, object]:
    """Return what lies in a folder, whole."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        else:
            found[name] = path.read_bytes() if path.is_file() else ("other", path.is_dir())
    return found


def _appear(
    folder: Path,
    bundles: tuple[Path, Path],
    scale: float,
    seed: int,
    figures: Counter[str],
    *,
    force: bool,
    flags: bool,
) -> None:
    """Let a thing appear at the target before a call of the writer's: instead of nothing, or of the bundle that it replaces."""
    place = folder / "place"
    target = place / "model.mtl"
    steps = 0

    def reset() -> None:
        disk.before = None
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if force:
            shutil.copytree(bundles[0], target)

    def count(kind: str, path: Path) -> None:
        nonlocal steps
        steps += 1

    function = disk._function
    if not flags:
        disk._function = lambda: None  # type: ignore[assignment]
    try:
        reset()
        disk.before = count
        put(bundles[1], target, force=force)
        pairs = [(step, thing) for step in range(1, steps + 1) for thing in (*THINGS, "another bundle")]
        random.Random(seed).shuffle(pairs)
        for step, thing in pairs[: max(8, round(scale * len(pairs)))]:
            reset()
            figures["things that appeared"] += 1
            _one_appears(target, bundles, step, thing, figures, force=force)
    finally:
        disk.before = None
        disk._function = function


def _one_appears(
    target: Path, bundles: tuple[Path, Path], step: int, thing: str, figures: Counter[str], *, force: bool
) -> None:
    seen, appeared, place = 0, {}, target.parent

    def before(kind: str, path: Path) -> None:
        nonlocal seen, appeared
        seen += 1
        if seen != step:
            return
        if target.exists():
            target.rename(place / "moved away")
        if thing == "another bundle":
            shutil.copytree(bundles[0], target)
        else:
            THINGS[thing](target)
        appeared = _of_others(place)

    disk.before = before
    try:
        put(bundles[1], target, force=force)
    except OptionError:
        pass
    except Exception as error:  # noqa: BLE001 - it is counted
        figures["errors that are not ours"] += 1
        print(f"{thing} at step {step}: {type(error).__name__}: {error}", file=sys.stderr)
    disk.before = None
    if thing == "another bundle" and force:  # any bundle may be replaced then
        appeared = {name: content for name, content in appeared.items() if not name.startswith(target.name)}
    after = _of_others(place)
    lost = [name for name, content in appeared.items() if after.get(name) != content]
    if lost:
        figures["files of others lost"] += 1
        print(f"{thing} at step {step}, force {force}: {lost[0]} is lost", file=sys.stderr)


def _of_others(place: Path) -> dict[str, object]:
    return {name: content for name, content in _everything(place).items() if not name.startswith(".model.mtl.")}


def _writers(folder: Path, bundles: tuple[Path, Path], count: int, figures: Counter[str]) -> None:
    """Start writers in pairs; each tells in a file when it is inside."""
    target = folder / "contested" / "model.mtl"
    target.parent.mkdir()
    code = _WRITER.format(root=str(Path(__file__).parents[2]), target=str(target), inside=str(folder / "inside"))
    per_process = max(2, count // 4)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(bundle), str(per_process)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for bundle in (*bundles, *bundles)
    ]
    for process in started:
        out, error = process.communicate(timeout=3600)
        if process.returncode != 0:
            raise RuntimeError(error.decode())
        for name, value in json.loads(out).items():
            figures[name] += value
    try:
        found = state(target)
    except MtlError:
        found = None
    figures["writers' bundles mixed"] += found not in {(one / "manifest.json").read_text() for one in bundles}


_WRITER = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import copy_files, write_manifest, writing
from mtl_deploy.runtime.errors import OptionError
found = open_bundle(sys.argv[1])
figures = {{"writers": 0, "two writers at once": 0, "writers refused": 0}}
for number in range(int(sys.argv[2])):
    figures["writers"] += 1
    try:
        with writing(Path({target!r}), force=True) as staged:
            try:
                os.close(os.open({inside!r}, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                figures["two writers at once"] += 1
            copy_files(found, staged)
            write_manifest(staged, found.manifest)
            os.unlink({inside!r})
    except OptionError as error:
        assert "is being written by another command" in str(error), error
        figures["writers refused"] += 1
        time.sleep(0.002)
print(json.dumps(figures))
"""


def _readers(folder: Path, bundles: tuple[Path, Path], count: int, figures: Counter[str], *, exchanged: bool) -> None:
    """Load the bundle again and again, while a process replaces it without a pause: each answer is one of the two bundles'."""
    from mtl_deploy.runtime import load

    target = folder / ("exchanged" if exchanged else "in place") / "model.mtl"
    target.parent.mkdir()
    put(bundles[0], target)
    image = np.full((1, *TINY, 3), 100, np.uint8)
    answers = {}
    for bundle in bundles:
        with load(bundle, providers=["CPU"], threads=1) as model:
            assert model.artifact is not None
            answers[model.artifact.sha256] = model(image)["age"].tobytes()
    command = [sys.executable, "-m", "tests.attacks.races", *map(str, bundles), str(target), str(int(exchanged))]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it writes by now
        for _ in range(count):
            figures["readings"] += 1
            try:
                with load(target, providers=["CPU"], threads=1, spinning=False) as model:
                    assert model.artifact is not None
                    wrong = answers.get(model.artifact.sha256) != model(image)["age"].tobytes()
                figures["readers that saw a mixture"] += wrong
            except Exception as error:  # noqa: BLE001 - it is counted
                figures["readers that failed"] += 1
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()


def _write_for_ever(first: Path, second: Path, target: Path, *, exchanged: bool) -> None:
    def refused(one: Path, other: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not exchanged:
        disk.exchange = refused
    print("writing", flush=True)
    while True:
        for bundle in (second, first):
            put(bundle, target)
            time.sleep(0)


if __name__ == "__main__":
    _write_for_ever(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), exchanged=sys.argv[4] == "1")
