"""Files that are written before their bundle: hashed on the way, put into it as they are, and gone with the work otherwise."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from mtl_deploy.runtime.bundle import writing
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.writing import EarlyFiles, claimed, copy_files, write_hashed
from mtl_deploy.runtime.errors import IntegrityError, OptionError
from mtl_deploy.runtime.files import disk

CONTENT = os.urandom(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    disk.before = None


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is opened to be read."""
    opened = os.open

    def refuse(path: str | Path, flags: int, *rest: int) -> int:
        assert flags & (os.O_WRONLY | os.O_RDWR), f"{path} is read"
        return opened(path, flags, *rest)

    def read(self: Path, *_: object, **__: object) -> None:
        raise AssertionError(f"{self} is read")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "open", read)


def refused(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False])
def test_what_is_hashed_is_what_is_in_the_bundle(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_reading: None
) -> None:
    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", refused)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    with EarlyFiles(tmp_path / "early", nullcontext) as early:
        early.write("separate/age.onnx", CONTENT)
        early.write("fp32.onnx", CONTENT[::-1])
        assert early.sha256("separate/age.onnx") == SHA256
        early.place("separate/age.onnx", bundle)
        early.place("fp32.onnx", bundle)
        digest = early.sha256("fp32.onnx")
    monkeypatch.undo()
    assert (bundle / "separate/age.onnx").read_bytes() == CONTENT
    assert hashlib.sha256((bundle / "fp32.onnx").read_bytes()).hexdigest() == digest


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on another disk."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_onto_another_disk_a_file_is_copied(tmp_path: Path, elsewhere: Path) -> None:
    with EarlyFiles(tmp_path / "early", nullcontext) as early:
        early.write("separate/age.onnx", CONTENT)
        early.place("separate/age.onnx", elsewhere)
    assert (elsewhere / "separate/age.onnx").read_bytes() == CONTENT


def test_a_copy_that_is_not_what_was_written_is_refused(tmp_path: Path, elsewhere: Path) -> None:
    with EarlyFiles(tmp_path / "early", nullcontext) as early:
        early.write("fp32.onnx", CONTENT)
        early.sha256("fp32.onnx")
        (file,) = (tmp_path / "early").iterdir()
        file.write_bytes(CONTENT[:-1] + b"?")
        with pytest.raises(OSError, match="not those written"):
            early.place("fp32.onnx", elsewhere)


def test_the_last_file_of_a_path_counts(tmp_path: Path) -> None:
    with EarlyFiles(tmp_path / "early", nullcontext) as early:
        early.write("fp16.onnx", b"too inaccurate")
        early.write("fp16.onnx", CONTENT)
        assert early.sha256("fp16.onnx") == SHA256
        early.place("fp16.onnx", tmp_path)
    assert (tmp_path / "fp16.onnx").read_bytes() == CONTENT


def test_a_full_disk_is_said_as_for_any_file(tmp_path: Path) -> None:
    def full(kind: str, path: Path) -> None:
        if kind == "write" and threading.current_thread() is not threading.main_thread():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = tmp_path / "model.mtl"
    with claimed(target, force=False) as claim, claim.early_files() as early:
        disk.before = full
        early.write("fp32.onnx", CONTENT)
        with pytest.raises(
            OptionError, match="No space left on device; nothing was written: free some space or choose"
        ):
            early.sha256("fp32.onnx")
        disk.before = None
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_of_what_no_bundle_took(tmp_path: Path) -> None:
    target = tmp_path / "model.mtl"

    def interrupted() -> None:
        with claimed(target, force=False) as claim, claim.early_files() as early:
            early.write("fp32.onnx", CONTENT)
            early.sha256("fp32.onnx")
            assert [path.name for path in tmp_path.iterdir()] != []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path, no_reading: None) -> None:
    assert write_hashed(tmp_path, "int8.onnx", CONTENT) == SHA256


@pytest.mark.parametrize("damaged", [False, True])
def test_a_copy_is_hashed_while_it_is_written(
    damaged: bool, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "model.mtl"))
    monkeypatch.setattr(disk, "_clone", lambda *_: False)  # a reflink has no bytes to hash
    monkeypatch.setattr(writing, "digest", lambda _: pytest.fail("the copy is read again"))
    (tmp_path / "copy").mkdir()
    if not damaged:
        copy_files(bundle, tmp_path / "copy")
        for artifact in bundle.manifest.files:
            assert (tmp_path / "copy" / artifact.path).read_bytes() == bundle.read(artifact)
        return
    file = bundle.path / bundle.manifest.files[0].path
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="was changed or copied badly"):
        copy_files(bundle, tmp_path / "copy")
