from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_deploy.runtime.bundle.manifest import MANIFEST, find_bundle, open_bundle
from mtl_deploy.runtime.bundle.writing import write_manifest, writing
from mtl_deploy.runtime.errors import BundleError, OptionError

MakeBundle = Callable[..., Path]


def changed(bundle: Path, **changes: Any) -> Path:
    file = bundle / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return bundle


def test_a_manifest_survives_reading_and_writing(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle())
    (tmp_path / "copy").mkdir()
    write_manifest(tmp_path / "copy", bundle.manifest)
    assert open_bundle(tmp_path / "copy").manifest == bundle.manifest
    assert open_bundle(bundle.path / MANIFEST).manifest == bundle.manifest


def test_fields_of_later_releases_are_ignored(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    artifacts = json.loads((bundle / MANIFEST).read_text())["artifacts"]
    changed(bundle, artifacts=[{**artifact, "colour": "blue"} for artifact in artifacts], mood="good")
    assert open_bundle(bundle).manifest.artifacts[0].path == "fp32.onnx"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this release reads 1; export again"),
        ({"artifacts": 3}, "malformed manifest: artifacts: 3 is not a list"),
        ({"artifacts": [{"path": "x"}]}, r"malformed manifest: artifacts\[0\]: field 'role' is missing"),
        ({"signature": None}, "malformed manifest: signature: null is not an object"),
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_used_is_refused(make_bundle: MakeBundle, changes: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        open_bundle(changed(make_bundle(), **changes))


@pytest.mark.parametrize("path", ["../secret.onnx", "/etc/passwd", "a/../../b.onnx", "a\\b.onnx"])
def test_paths_that_leave_the_bundle_are_refused(make_bundle: MakeBundle, path: str) -> None:
    bundle = make_bundle()
    artifacts = json.loads((bundle / MANIFEST).read_text())["artifacts"]
    with pytest.raises(BundleError, match="leaves the bundle"):
        open_bundle(changed(bundle, artifacts=[{**artifacts[0], "path": path}]))


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_what_is_no_json_object_is_refused(make_bundle: MakeBundle, text: str) -> None:
    bundle = make_bundle()
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=MANIFEST):
        open_bundle(bundle)


def test_a_missing_artifact_is_named(make_bundle: MakeBundle) -> None:
    bundle = open_bundle(make_bundle())
    (bundle.path / "fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"fp32\.onnx: No such file"):
        bundle.read(bundle.manifest.artifacts[0])


def test_a_file_finds_the_bundle_around_it(make_bundle: MakeBundle, tmp_path: Path) -> None:
    folder = make_bundle()
    found = find_bundle(folder / "separate" / "race.onnx")
    assert found is not None
    assert found[1].tasks == ("race",)
    stray = tmp_path / "stray.onnx"
    stray.write_bytes(b"")
    assert find_bundle(stray) is None


def write(target: Path, text: str = "new", *, force: bool = False, error: BaseException | None = None) -> None:
    with writing(target, force=force) as folder:
        (folder / MANIFEST).write_text(text)
        if error is not None:
            raise error


def test_a_bundle_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "out.mtl"
    write(target)
    assert [path.name for path in target.iterdir()] == [MANIFEST]
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == tmp_path.joinpath("deep").stat().st_mode & 0o777


@pytest.mark.parametrize(
    "error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=lambda e: type(e).__name__
)
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "deep" / "out.mtl", error=error)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_bundle_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.mtl"
    write(target, "old")
    with pytest.raises(ValueError, match="broken"):
        write(target, force=True, error=ValueError("broken"))
    assert (target / MANIFEST).read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_bundle_is_replaced_by_force_alone(tmp_path: Path) -> None:
    target = tmp_path / "out.mtl"
    write(target, "old")
    with pytest.raises(OptionError, match="--force"):
        write(target)
    write(target, force=True)
    assert (target / MANIFEST).read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No space left on device; nothing was written"):
        write(tmp_path / "out.mtl", error=OSError(28, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot write"):
        write(tmp_path / "file" / "out.mtl")
