"""Where ``mtl-calibrate`` writes: in the bundle itself, wherever it is called from, beside it, through a link."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.calibration.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import SIGNATURE_FILE, digest, open_bundle
from mtl_deploy.runtime.files import disk

MakeBundle = Callable[..., Path]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return [
        "--calibration-data",
        str(tmp_path / "images.npy"),
        "--calibration-method",
        "minmax",
        "--threads",
        "1",
        "-q",
    ]


@pytest.fixture
def bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "place" / "model.mtl", work=2)


def hashes(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): digest(file) for file in folder.rglob("*") if file.is_file()}


def require_int8(folder: Path) -> None:
    for precision in ("int8", "int8-cpu"):
        with load(folder, precision=precision, providers=["CPU"], threads=1) as model:
            assert model.artifact is not None
            assert np.isfinite(model(np.zeros((1, 8, 8, 3), np.uint8))["age"]).all()


@pytest.mark.parametrize("name", [".", "manifest.json", "../model.mtl"])
def test_from_within_the_bundle(name: str, bundle: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    before = sorted(hashes(bundle))
    assert main([name, *options]) == 0
    require_int8(bundle)
    require_int8(Path())  # the shell's folder is still the bundle
    added = {"calibration.json", *(f"{p}.onnx" for p in ("int8", "int8-cpu"))}
    added |= {f"separate/{task}.{p}.onnx" for task in ("age", "gender", "race") for p in ("int8", "int8-cpu")}
    assert set(hashes(bundle)) == {*before, *added}
    assert [path.name for path in bundle.parent.iterdir()] == ["model.mtl"]


def test_through_a_link(bundle: Path, options: list[str]) -> None:
    link = bundle.parent / "current.mtl"
    link.symlink_to("model.mtl")
    assert main([str(link), *options]) == 0
    assert str(link.readlink()) == "model.mtl"
    require_int8(bundle)
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["current.mtl", "model.mtl"]


def test_another_bundle_shares_no_file_with_the_first(bundle: Path, options: list[str], tmp_path: Path) -> None:
    before = hashes(bundle)
    copy = tmp_path / "copy.mtl"
    assert main([str(bundle), *options, "-o", str(copy)]) == 0
    for path in before:
        with (copy / path).open("r+b") as file:  # an editor that writes into the file
            file.write(b"changed")
    assert hashes(bundle) == before


def test_another_bundle_in_the_bundle_is_refused(
    bundle: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = hashes(bundle)
    assert main([str(bundle), *options, "-o", str(bundle / "copy.mtl")]) == 2
    assert "lies in the bundle" in capsys.readouterr().err
    assert hashes(bundle) == before


def test_a_bundle_is_calibrated_again_in_its_place_by_name(bundle: Path, options: list[str]) -> None:
    assert main([str(bundle), *options, "-o", str(bundle)]) == 2
    assert main([str(bundle), *options, "-o", str(bundle), "-f"]) == 0
    require_int8(bundle)


def test_an_interrupt_leaves_the_bundle_as_it_was(bundle: Path, options: list[str]) -> None:
    before = hashes(bundle)

    def interrupt(kind: str, path: Path) -> None:
        if path.name == "calibration.json" and kind == "write":
            os.kill(os.getpid(), signal.SIGTERM)

    disk.before = interrupt
    try:
        assert main([str(bundle), *options]) == 143
    finally:
        disk.before = None
    assert hashes(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["model.mtl"]
    assert open_bundle(bundle).manifest.calibration == {}


def test_a_signed_bundle_says_that_it_is_not_signed_any_more(
    bundle: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / SIGNATURE_FILE).write_bytes(b"x" * 64)
    assert main([str(bundle), *options]) == 0
    assert f"warning: {bundle} is no longer signed" in capsys.readouterr().err
    assert not (bundle / SIGNATURE_FILE).exists()


@pytest.mark.parametrize("budget", ["ages=0.1", "age=0.1,race=most", "age=0.1,age=0.2"])
def test_a_budget_that_cannot_be_meant_is_noticed_before_the_images_are_read(
    budget: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), "--calibration-data", str(tmp_path / "absent"), "--max-drop", budget]) == 2
    assert "max drop" in capsys.readouterr().err
    assert main([str(bundle), "--calibration-data", str(tmp_path / "absent"), "--max-drop", "age=5%"]) == 2
    assert "absent: No such file" in capsys.readouterr().err  # whether there are labels for a % is known only then
