"""One writer per target; what appears there stays; links, mount points and what dead commands left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mtl_deploy.runtime.bundle.manifest import FORMER, MANIFEST, MEASURED_FILE, open_bundle
from mtl_deploy.runtime.bundle.replacing import in_place
from mtl_deploy.runtime.bundle.writing import claimed, copy_files, updating, write_file, write_manifest, writing
from mtl_deploy.runtime.errors import BundleError, IntegrityError, LeftoverWarning, OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.locks import Owner
from tests.networks.split_bundle import write_uneven_bundle

MakeBundle = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    disk.before = None


@pytest.fixture
def in_place_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can be exchanged, as in a container image's layer."""

    def refused(one: Path, other: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(disk, "exchange", refused)


def put(bundle: Path, target: Path, *, force: bool = True, signature: str = "") -> None:
    found = open_bundle(bundle)
    with writing(target, force=force) as staged:
        copy_files(found, staged)
        write_manifest(staged, found.manifest)
        if signature:
            write_file(staged, "manifest.json.sig", signature.encode())


def require_whole(target: Path, like: Path) -> None:
    found = open_bundle(target)
    assert found.manifest == open_bundle(like).manifest
    for artifact in found.manifest.files:
        found.read(artifact)


def two(make_bundle: MakeBundle, folder: Path) -> tuple[Path, Path, Path]:
    """Return a bundle in a folder of its own, what it was copied from, and another one."""
    old, new = make_bundle(folder / "old.mtl", precisions=("fp32",)), make_bundle(folder / "new.mtl", work=1)
    (folder / "place").mkdir()
    target = folder / "place" / "model.mtl"
    shutil.copytree(old, target)
    return target, old, new


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_refused_and_the_first_goes_on(make_bundle: MakeBundle, tmp_path: Path) -> None:
    target, _, new = two(make_bundle, tmp_path)
    found = open_bundle(new)
    with writing(target, force=True) as staged:
        copy_files(found, staged)
        with pytest.raises(OptionError, match=rf"is being written by another command \(process {os.getpid()} on "):
            put(new, target)
        lock = target.parent / ".model.mtl.lock"
        lock.write_text("")  # as it is for a moment, before its holder has written into it
        with pytest.raises(OptionError, match="is being written by another command; wait"):
            put(new, target)
        assert lock.exists()
        write_manifest(staged, found.manifest)
    require_whole(target, new)
    assert names(target.parent) == ["model.mtl"]


def test_a_file_system_without_locks_refuses_a_second_writer_too(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def unsupported(number: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    target, _, new = two(make_bundle, tmp_path)
    with claimed(target, force=True), pytest.raises(OptionError, match="is being written by another command"):
        put(new, target)
    put(new, target)
    assert names(target.parent) == ["model.mtl"]


@pytest.mark.parametrize("way", ["exchange", "in place"])
def test_a_link_stays_and_what_it_leads_to_is_replaced(
    way: str, make_bundle: MakeBundle, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if way == "in place":
        request.getfixturevalue("in_place_only")
    target, _, new = two(make_bundle, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "current.mtl"
    link.symlink_to("../place/model.mtl")
    put(new, link)
    assert str(link.readlink()) == "../place/model.mtl"
    assert not target.is_symlink()
    require_whole(target, new)
    require_whole(link, new)
    assert (names(tmp_path / "elsewhere"), names(target.parent)) == (["current.mtl"], ["model.mtl"])


@pytest.mark.parametrize("way", ["exchange", "in place"])
def test_measurements_of_a_bundle_go_with_it(
    way: str, make_bundle: MakeBundle, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if way == "in place":
        request.getfixturevalue("in_place_only")
    target, _, new = two(make_bundle, tmp_path)
    (target / MEASURED_FILE).write_text("{}")
    put(new, target)
    assert not (target / MEASURED_FILE).exists()
    (new / MEASURED_FILE).write_text("[]")
    put(new, target)
    assert (target / MEASURED_FILE).read_text() == "[]"


def test_a_link_to_nothing_and_a_link_to_itself(make_bundle: MakeBundle, tmp_path: Path) -> None:
    new = make_bundle(tmp_path / "new.mtl")
    (tmp_path / "current.mtl").symlink_to("v4.mtl")
    with pytest.raises(OptionError, match="--force"):
        put(new, tmp_path / "current.mtl", force=False)
    put(new, tmp_path / "current.mtl")
    require_whole(tmp_path / "v4.mtl", new)
    (tmp_path / "loop.mtl").symlink_to("loop.mtl")
    with pytest.raises(OptionError, match="cannot write"):
        put(new, tmp_path / "loop.mtl")


def test_the_target_is_looked_at_before_the_work(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """All that can be wrong with it is said when it is claimed, not after minutes."""
    target, _, _ = two(make_bundle, tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    for place, force, message in (
        (target, False, "pass --force"),
        (tmp_path / "folder", True, "is not a bundle"),
        (tmp_path / "folder" / "thesis.txt" / "model.mtl", True, "cannot write"),
    ):
        with pytest.raises(OptionError, match=message), claimed(place, force=force):
            pytest.fail("the work has begun")
    assert names(tmp_path / "folder") == ["thesis.txt"]


@pytest.mark.parametrize(
    ("option", "advice"), [("--output", " with --output"), ("--triton", " with --triton"), ("", "")]
)
def test_the_advice_names_the_option_that_names_the_place(
    option: str, advice: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    target, _, _ = two(make_bundle, tmp_path)
    (tmp_path / "file").write_text("in the way of a folder")
    for place, force, message in (
        (target, False, f"exists; pass --force to replace it, or choose another place{advice}"),
        (
            tmp_path / "file" / "model.mtl",
            True,
            f"nothing was written: free some space or choose another place{advice}",
        ),
    ):
        with pytest.raises(OptionError) as said, claimed(place, force=force, option=option):
            pytest.fail("the work has begun")
        assert str(said.value).endswith(message)


def test_an_input_in_the_bundle_that_would_go_is_not_lost(make_bundle: MakeBundle, tmp_path: Path) -> None:
    target, _, _ = two(make_bundle, tmp_path)
    (target / "model.pt").write_text("weights")
    with (
        pytest.raises(OptionError, match=r"model\.pt lies in .*: move it"),
        claimed(target, force=True, inputs=[target / "model.pt"]),
    ):
        pytest.fail("the work has begun")
    with pytest.raises(OptionError, match="lies in the bundle"), updating(target, target / "in.mtl", force=False):
        pytest.fail("the work has begun")
    shutil.copytree(tmp_path / "new.mtl", target / "in.mtl")
    with pytest.raises(OptionError, match="lies in "), updating(target / "in.mtl", target, force=True):
        pytest.fail("the work has begun")


@pytest.mark.parametrize("way", ["exchange", "in place"])
def test_an_update_replaces_the_bundle_that_it_was_made_from_and_no_other(
    way: str, make_bundle: MakeBundle, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if way == "in place":
        request.getfixturevalue("in_place_only")
    target, _, new = two(make_bundle, tmp_path)

    def update() -> None:
        with updating(target, None, force=False) as (bundle, claim), claim.writing() as staged:
            copy_files(bundle, staged)
            write_manifest(staged, replace(bundle.manifest, name="mine"))
            shutil.rmtree(target)
            shutil.copytree(new, target)

    with pytest.raises(OptionError, match="became something else during the work"):
        update()
    require_whole(target, new)


def test_a_private_bundle_stays_private(make_bundle: MakeBundle, tmp_path: Path) -> None:
    target, _, new = two(make_bundle, tmp_path)
    target.chmod(0o700)
    put(new, target)
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_replacement_in_place_keeps_the_folder_and_strangers(
    make_bundle: MakeBundle, tmp_path: Path, in_place_only: None
) -> None:
    target, _, new = two(make_bundle, tmp_path)
    inode = target.stat().st_ino
    (target / "notes.txt").write_text("mine")
    put(new, target)
    require_whole(target, new)
    assert target.stat().st_ino == inode
    assert (target / "notes.txt").read_text() == "mine"
    put(tmp_path / "old.mtl", target)
    require_whole(target, tmp_path / "old.mtl")
    files = {str(path) for path in in_place.own_files(target)}
    assert files == {str(path) for path in in_place.own_files(tmp_path / "old.mtl")} | {"notes.txt"}


def test_parts_come_and_go_in_place(make_bundle: MakeBundle, tmp_path: Path, in_place_only: None) -> None:
    target, old, _ = two(make_bundle, tmp_path)
    new = write_uneven_bundle(tmp_path / "parts.mtl")
    put(new, target)
    found = open_bundle(target)
    assert found.manifest == open_bundle(new).manifest
    for part in found.manifest.files:
        found.read(part)
    put(old, target)
    require_whole(target, old)
    assert not (target / "split").exists()


def test_the_current_folder_is_replaced_in_place(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell in the bundle must not find itself in a folder that is gone; nor may the bundle be copied into itself."""
    target, _, new = two(make_bundle, tmp_path)
    monkeypatch.chdir(target)
    put(new, Path())
    require_whole(Path(), new)
    require_whole(target, new)
    assert names(target) == names(new)
    assert names(target.parent) == ["model.mtl"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX modes")
def test_a_folder_in_a_place_that_cannot_be_written_is_replaced_from_within(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _, new = two(make_bundle, tmp_path)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != target.parent and access(path, mode)
    )  # root may all
    put(new, target)
    require_whole(target, new)
    assert names(target) == names(new)


def test_readers_find_a_displaced_file(make_bundle: MakeBundle, tmp_path: Path) -> None:
    target, _, new = two(make_bundle, tmp_path)
    bundle = open_bundle(target)
    artifact = bundle.manifest.artifacts[0]
    (target / FORMER).mkdir()
    (target / artifact.path).rename(target / FORMER / artifact.path)
    shutil.copy(new / artifact.path, target / artifact.path)
    assert bundle.read(artifact)
    (target / FORMER / artifact.path).write_bytes(b"damaged")
    with pytest.raises(IntegrityError):
        bundle.read(artifact)


def end_in(work: Callable[[], None], step: tuple[str, str]) -> Owner:
    """Do the work in a process that ends before a call of the file system, given by its kind and a part of its path."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:

        def before(kind: str, path: Path) -> None:
            if kind == step[0] and step[1] in str(path):
                os._exit(7)

        disk.before = before
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    return replace(Owner.here(), pid=pid)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (("write", "fp32.onnx"), r"removed .*\.partial, left by a command that was killed \(process "),
        (("exchange", "model.mtl"), r"removed .*\.partial"),
        (("rmdir", "bundle"), r"removed .*\.partial"),
    ],
    ids=["while-it-writes", "before-the-exchange", "after-it"],
)
def test_what_a_killed_command_left_is_removed_and_said(
    step: tuple[str, str], said: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    target, _, new = two(make_bundle, tmp_path)
    found = open_bundle(new)

    def work() -> None:
        with writing(target, force=True) as staged:
            for artifact in found.manifest.artifacts:
                write_file(staged, artifact.path, found.read(artifact))
            write_manifest(staged, found.manifest)

    end_in(work, step)
    assert len(names(target.parent)) == 3
    with pytest.warns(LeftoverWarning, match=said):
        put(new, target)
    require_whole(target, new)
    assert names(target.parent) == ["model.mtl"]


@pytest.mark.parametrize(
    ("step", "becomes"),
    [(("rename", "place/model.mtl/fp32.onnx"), "old"), (("rename", "place/model.mtl/manifest.json"), "old")],
    ids=["before-a-file", "before-the-manifest"],
)
def test_a_replacement_in_place_that_was_killed_is_undone(
    step: tuple[str, str], becomes: str, make_bundle: MakeBundle, tmp_path: Path, in_place_only: None
) -> None:
    target, _, new = two(make_bundle, tmp_path)
    end_in(lambda: put(new, target), step)
    require_whole(target, tmp_path / f"{becomes}.mtl")  # for readers, at once
    with pytest.warns(LeftoverWarning) as said, claimed(target, force=True):
        assert names(target) == names(tmp_path / f"{becomes}.mtl")
    assert any("is whole again" in str(warning.message) for warning in said)
    require_whole(target, tmp_path / f"{becomes}.mtl")
    for artifact in open_bundle(target).manifest.artifacts:  # for other readers, too
        assert (target / artifact.path).read_bytes() == (tmp_path / f"{becomes}.mtl" / artifact.path).read_bytes()


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (("rename", "place/model.mtl/manifest.json"), "old"),
        (("rmdir", ".mtl-next"), "new"),
        (("rmdir", ".mtl-former"), "new"),
    ],
    ids=["before-the-manifest", "after-it", "at-the-end"],
)
def test_a_file_that_no_manifest_lists_goes_with_its_manifest(
    step: tuple[str, str], expected: str, make_bundle: MakeBundle, tmp_path: Path, in_place_only: None
) -> None:
    target, old, new = two(make_bundle, tmp_path)
    (target / "manifest.json.sig").write_text("old")
    end_in(lambda: put(new, target, signature="new"), step)
    with pytest.warns(LeftoverWarning), claimed(target, force=True):
        pass
    require_whole(target, tmp_path / f"{expected}.mtl")
    assert (target / "manifest.json.sig").read_text() == expected
    put(old, target)
    assert not (target / "manifest.json.sig").exists()


def test_a_folder_of_others_that_was_exchanged_before_a_kill_is_left_and_named(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """It appears between the look and the exchange, and the command dies before it puts it back."""
    target, _, new = two(make_bundle, tmp_path)

    def work() -> None:
        real = disk.exchange

        def exchange(one: Path, other: Path) -> None:
            shutil.rmtree(other)
            other.mkdir()
            (other / "thesis.txt").write_text("years of work")
            real(one, other)
            os._exit(7)

        disk.exchange = exchange
        put(new, target)

    end_in(work, ("never", ""))
    with pytest.warns(LeftoverWarning, match=r"bundle was at .*model\.mtl when a command was killed: move it"):
        put(new, target)
    (left,) = target.parent.glob(".model.mtl.*.partial")
    assert (left / "bundle" / "thesis.txt").read_text() == "years of work"


def test_a_bundle_that_an_earlier_release_retired_is_restored(make_bundle: MakeBundle, tmp_path: Path) -> None:
    target, old, _ = two(make_bundle, tmp_path)
    retired = target.parent / ".model.mtl.a1b2c3d4.old"
    retired.mkdir()
    target.rename(retired / "model.mtl")
    with pytest.warns(LeftoverWarning, match="restored "), claimed(target, force=True):
        require_whole(target, old)
    assert names(target.parent) == ["model.mtl"]


@pytest.mark.parametrize("name", [".model.mtl.a1b2c3d4.partial", ".model.mtl.a1b2c3d4.old"])
def test_what_may_be_another_command_s_is_left_alone_and_named(
    name: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    target, _, new = two(make_bundle, tmp_path)
    (target.parent / name / "model.mtl").mkdir(parents=True)
    with pytest.warns(LeftoverWarning, match="remove it, unless that command still runs"):
        put(new, target)
    assert names(target.parent) == [name, "model.mtl"]


@pytest.mark.parametrize(
    ("change", "locked", "dead"),
    [
        ({}, True, True),  # this process, which holds the lock: it failed to remove it
        ({}, False, False),
        ({"started": 1}, False, True),  # its number was given to this process since
        ({"pid": 2**22 + 1}, False, True),  # no such process
        ({"namespace": 1, "pid": 2**22 + 1}, False, False),  # another container's: its numbers mean nothing here
        ({"namespace": 1}, True, True),  # but the kernel has freed its lock
        ({"boot": "00000000"}, True, True),  # this host, started anew
        ({"boot": "00000000"}, False, False),
        ({"boot": "00000000", "host": "00000000"}, True, False),  # another host, on a network file system
    ],
    ids=str,
)
def test_a_process_is_dead_only_where_that_is_certain(change: dict[str, object], locked: bool, dead: bool) -> None:
    owner = replace(Owner.here(), **change)  # type: ignore[arg-type]
    assert Owner.parse(str(owner)) == owner
    assert owner.is_dead(locked=locked) is dead


def test_a_killed_process_that_nobody_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    owner = replace(Owner.here(), pid=process.pid, started=int(stat[19]))
    assert not owner.is_dead(locked=False)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert owner.is_dead(locked=False)
    process.wait()


def test_a_copy_shares_nothing_with_its_original(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = make_bundle()
    with updating(source, tmp_path / "copy.mtl", force=False) as (bundle, claim), claim.writing() as staged:
        copy_files(bundle, staged, share=claim.update)
        write_manifest(staged, bundle.manifest)
    for file in (path for path in source.rglob("*") if path.is_file()):
        copy = tmp_path / "copy.mtl" / file.relative_to(source)
        assert not copy.samefile(file)
        assert copy.read_bytes() == file.read_bytes()
        assert copy.stat().st_mode == file.stat().st_mode


@pytest.mark.parametrize("way", ["exchange", "in place"])
def test_an_update_keeps_what_the_user_put_into_the_folder(
    way: str, make_bundle: MakeBundle, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if way == "in place":
        request.getfixturevalue("in_place_only")
    target, old, _ = two(make_bundle, tmp_path)
    (target / "notes").mkdir()
    (target / "notes" / "mine.txt").write_text("mine")
    (target / "manifest.json.sig").write_text("of the manifest as it was")
    for name, leads_to in (("photos", "../.."), ("latest.txt", "notes/mine.txt"), ("later", "nowhere")):
        (target / name).symlink_to(leads_to)
    with updating(target, None, force=False) as (bundle, claim), claim.writing() as staged:
        copy_files(bundle, staged, share=claim.update)
        write_manifest(staged, replace(bundle.manifest, sharing={"changed": True}))
    assert open_bundle(target).manifest.sharing == {"changed": True}
    assert (target / "notes" / "mine.txt").read_text() == "mine"
    links = {path.name: str(path.readlink()) for path in target.iterdir() if path.is_symlink()}
    assert links == {"photos": "../..", "latest.txt": "notes/mine.txt", "later": "nowhere"}
    assert names(target) == sorted([*names(old), "notes", *links])


def test_a_damaged_or_missing_file_is_not_passed_on(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle())
    (tmp_path / "copy").mkdir()
    (bundle.path / "fp32.onnx").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"fp32\.onnx"):
        copy_files(bundle, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")
    (tmp_path / "copy").mkdir()
    (bundle.path / "fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"fp32\.onnx: No such file"):
        copy_files(bundle, tmp_path / "copy")


def test_nothing_is_said_where_nothing_was_left(make_bundle: MakeBundle, tmp_path: Path) -> None:
    target, _, new = two(make_bundle, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        put(new, target)
    assert (target / MANIFEST).is_file()
