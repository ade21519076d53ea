"""Renames that replace nothing, exchanges, and what serves where the system has neither."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtl_deploy.runtime.files import disk

THINGS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: path.write_text("mine"),
    "a folder with files": lambda path: (path.mkdir(), (path / "mine").write_text("mine")),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a pipe": lambda path: os.mkfifo(path),
}


@pytest.fixture(params=["renameat2", "neither"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Linux with its calls, and a system without."""
    if request.param == "neither":
        monkeypatch.setattr(disk, "_function", lambda: None)
    return request.param


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("source", ["file", "folder"])
def test_a_rename_to_a_new_name_replaces_nothing(system: str, source: str, thing: str, tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    THINGS[thing](there)
    before = there.lstat()
    if source == "file":
        new.write_text("new")
    else:
        new.mkdir()
    with pytest.raises(FileExistsError):
        disk.rename_new(new, there)
    assert os.path.samestat(there.lstat(), before)
    assert new.exists()
    disk.rename_new(new, tmp_path / "free")
    assert (tmp_path / "free").exists()
    assert not new.exists()


def test_two_entries_change_places_or_stay(system: str, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "a").write_text("a")
    other.mkdir()
    (other / "b").write_text("b")
    if system == "neither":
        with pytest.raises(OSError) as caught:
            disk.exchange(one, other)
        assert caught.value.errno == errno.ENOSYS
        assert errno.ENOSYS in disk.NOT_EXCHANGED
        assert (one / "a").exists()
    else:
        disk.exchange(one, other)
        assert (one / "b").exists()
        assert (other / "a").exists()


def test_a_file_system_that_does_not_know_a_flag_is_as_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ctypes

    def unknown(*arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(disk, "_function", lambda: unknown)
    (tmp_path / "new").mkdir()
    disk.rename_new(tmp_path / "new", tmp_path / "there")
    assert (tmp_path / "there").is_dir()


def test_a_copy_is_another_file_and_replaces_none(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(range(256)) * 9000)
    (tmp_path / "one").chmod(0o640)
    disk.copy(tmp_path / "one", tmp_path / "two")
    with (tmp_path / "two").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "one").read_bytes() == bytes(range(256)) * 9000
    assert (tmp_path / "two").read_bytes() == b"changed" + (bytes(range(256)) * 9000)[7:]
    assert (tmp_path / "two").stat().st_mode == (tmp_path / "one").stat().st_mode
    with pytest.raises(FileExistsError):
        disk.copy(tmp_path / "one", tmp_path / "two")


def test_a_file_gets_another_content_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    disk.replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"

    def full(kind: str, path: Path) -> None:
        if kind == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, "before", full)
    with pytest.raises(OSError, match="No space left"):
        disk.replace_file(tmp_path / "file", b"newer")
    assert (tmp_path / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_pipe_in_the_place_of_a_file_is_no_reason_to_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="Invalid argument"):
        disk.sync(tmp_path / "pipe")


def test_a_tree_is_removed_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("mine")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "precious")
    disk.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "precious" / "thesis").read_text() == "mine"
    disk.remove_tree(tmp_path / "nowhere")
