"""What was compiled is found again, and nothing that somebody put there does harm."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime import load
from mtl_deploy.runtime.backends.openvino import graph as graph_module
from mtl_deploy.runtime.backends.openvino.cache import FOLDER, MOST_FILES, CompiledCache
from mtl_deploy.runtime.backends.openvino.library import start

pytest.importorskip("openvino")

MakeBundle = Callable[..., Path]
IMAGES = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def compiles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each graph that is really read, which happens only where it is compiled."""
    found: list[str] = []
    read = graph_module.Graph._read

    def noted(self: Any, content: bytes | None = None) -> Any:
        found.append(self._where)
        return read(self, content)

    monkeypatch.setattr(graph_module.Graph, "_read", noted)
    return found


def run(bundle: Path, **options: Any) -> dict[str, np.ndarray]:
    with load(bundle, backend="openvino", **options) as model:
        found: dict[str, np.ndarray] = model(IMAGES)
        return found


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def key_of(content: bytes) -> str:
    return content.split(b"\n", 1)[1][:64].decode()


def is_sound(file: Path, key: str) -> bool:
    """Return whether an entry counts; what OpenVINO writes differs a little each time."""
    return CompiledCache(file.parent, {}).read(key) is not None


def test_a_second_start_compiles_nothing(make_bundle: MakeBundle, compiles: list[str]) -> None:
    bundle = make_bundle(work=2)
    first = run(bundle)
    assert len(compiles) == 1
    (name,) = names(bundle / FOLDER)
    assert stat.S_IMODE((bundle / FOLDER / name).stat().st_mode) & 0o022 == 0
    again = run(bundle)
    assert len(compiles) == 1
    for task, values in first.items():
        np.testing.assert_array_equal(again[task], values)
    run(bundle, tasks=["age"])  # another graph
    run(bundle, threads=1)  # compiled otherwise
    assert len(compiles) == 3
    assert len(names(bundle / FOLDER)) == 3


def test_it_can_be_turned_off_moved_and_is_off_where_a_signature_is_wanted(
    make_bundle: MakeBundle, tmp_path: Path, compiles: list[str]
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from mtl_deploy.runtime.bundle.signing import SIGNATURE_FILE

    bundle = make_bundle()
    run(bundle, runtime_cache=False)
    key = Ed25519PrivateKey.generate()
    (bundle / SIGNATURE_FILE).write_bytes(key.sign((bundle / "manifest.json").read_bytes()))
    run(bundle, verify_key=key.public_key().public_bytes_raw())
    assert not (bundle / FOLDER).exists()
    for _ in range(2):
        run(bundle, runtime_cache=tmp_path / "kept", verify_key=key.public_key().public_bytes_raw())
    assert len(compiles) == 3
    assert len(names(tmp_path / "kept")) == 1
    lone = tmp_path / "lone.onnx"
    lone.write_bytes((bundle / "fp32.onnx").read_bytes())
    run(lone)
    assert not (tmp_path / FOLDER).exists()  # nothing is written beside a file that is no bundle's


def test_a_changed_graph_is_not_run_from_the_cache(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle, other = make_bundle(), make_bundle(tmp_path / "other.mtl", work=1)
    expected = run(other)
    run(bundle)
    for name in names(bundle / FOLDER):  # under the other's name
        (other / FOLDER / names(other / FOLDER)[0]).write_bytes((bundle / FOLDER / name).read_bytes())
    for task, values in run(other).items():
        np.testing.assert_array_equal(values, expected[task])


@pytest.mark.parametrize("damage", ["empty", "cut", "flip", "noise", "folder", "pipe", "link", "writable"])
def test_a_damaged_entry_is_compiled_again(make_bundle: MakeBundle, tmp_path: Path, damage: str) -> None:
    bundle = make_bundle()
    expected = run(bundle)
    file = bundle / FOLDER / names(bundle / FOLDER)[0]
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage == "pipe":
        os.mkfifo(file)
    elif damage == "link":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(content)
        file.symlink_to(elsewhere)
    else:
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 1
        noise = np.random.default_rng(0).bytes(len(content))
        made = {"empty": b"", "cut": content[:-7], "flip": flipped, "noise": noise, "writable": content}[damage]
        file.write_bytes(made)
        file.chmod(0o666 if damage == "writable" else 0o644)
    for task, values in run(bundle).items():
        np.testing.assert_array_equal(values, expected[task])
    if damage == "link":
        assert (tmp_path / "elsewhere").read_bytes() == content  # it was not written through
    if damage != "folder":  # which is left alone
        assert is_sound(file, key_of(content))


@pytest.mark.parametrize("trap", ["link", "file", "writable", "nothing"])
def test_a_folder_that_is_none_of_ours_is_left_alone(make_bundle: MakeBundle, tmp_path: Path, trap: str) -> None:
    bundle, target = make_bundle(), tmp_path / "target"
    target.mkdir()
    place = bundle / FOLDER
    if trap == "link":
        place.symlink_to(target)  # as an unpacked bundle may have it
    elif trap == "file":
        place.write_bytes(b"mine")
    elif trap == "writable":
        place.mkdir()
        place.chmod(0o777)
    else:
        place.symlink_to(tmp_path / "missing")
    before = {file: file.lstat() for file in (place, target)}
    run(bundle)
    assert names(target) == []
    assert not (tmp_path / "missing").exists()
    assert place.lstat() == before[place]


def test_a_bundle_that_cannot_be_written_runs_and_stays_as_it_is(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()

    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    before = names(bundle)
    run(bundle)
    assert names(bundle) == before


def test_the_oldest_of_too_many_entries_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    cache = CompiledCache(folder, {"openvino": start().build})
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    keys = [cache.key(b"graph", number=number) for number in range(MOST_FILES + 3)]
    for number, key in enumerate(keys):
        cache.keep(key, b"compiled %d" % number)
        (entry,) = folder.glob(f"openvino-{key[:32]}*")
        os.utime(entry, (number, number))
    assert [cache.read(key) is not None for key in keys] == [False] * 3 + [True] * MOST_FILES
    assert (folder / "notes.txt").read_text() == "mine"
    assert cache.read(keys[-1]) == b"compiled %d" % (MOST_FILES + 2)


def test_what_openvino_refuses_is_compiled_again(make_bundle: MakeBundle) -> None:
    """Such as what a release wrote that calls itself by the same name: the entry is sound, and its content is not."""
    bundle = make_bundle()
    expected = run(bundle)
    cache = CompiledCache(bundle / FOLDER, {})
    (name,) = names(bundle / FOLDER)
    content = (bundle / FOLDER / name).read_bytes()
    key = key_of(content)
    cache.keep(key, b"<?xml version='1.0'?><net name='a' version='11'><layers/></net>")
    for task, values in run(bundle).items():
        np.testing.assert_array_equal(values, expected[task])
    assert is_sound(bundle / FOLDER / name, key)
    assert len((bundle / FOLDER / name).read_bytes()) > len(content) // 2
