"""A quick export makes the same graph, and nobody takes its bundle for one that was fully checked."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

import pytest

from mtl_deploy.export.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.doctor.cli import main as doctor
from mtl_deploy.runtime.errors import UncheckedWarning

SIZE = ["--image-size", "64x64", "--threads", "1"]
UNCHECKED = [
    "verified on 8 images instead of 32",
    "no pictures unlike photographs",
    "no search for weights that verification cannot see",
    "no FP16",
    "no separate models",
]


@pytest.fixture(scope="module")
def quick(article_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quick") / "quick.mtl"
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert main([str(article_checkpoint), *SIZE, "--quick", "-o", str(target)]) == 0
    assert "warning: a quick export, for development: verified on 8 images instead of 32; " in said.getvalue()
    assert said.getvalue().count("warning") == 1
    return target


def test_the_graph_is_the_same(quick: Path, article_bundle: Path) -> None:
    assert sorted(path.name for path in quick.iterdir()) == ["fp32.onnx", "manifest.json", "reference.npz"]
    assert (quick / "fp32.onnx").read_bytes() == (article_bundle / "fp32.onnx").read_bytes()
    rows = open_bundle(quick).manifest.verification
    assert {(row["artifact"], row["samples"], row["truth"]) for row in rows} == {("fp32.onnx", 8, "float64")}


def test_it_says_what_was_not_checked(quick: Path, article_bundle: Path) -> None:
    assert json.loads((quick / "manifest.json").read_text())["provenance"]["unchecked"] == UNCHECKED
    assert open_bundle(quick).manifest.unchecked == tuple(UNCHECKED)
    assert open_bundle(article_bundle).manifest.unchecked == ()


@pytest.mark.parametrize("part", ["", "fp32.onnx"])
def test_whoever_loads_it_hears_it(quick: Path, article_bundle: Path, part: str) -> None:
    with pytest.warns(
        UncheckedWarning, match="quick export, for development: .*no separate models; export it without --quick"
    ):
        load(quick / part).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UncheckedWarning)
        load(article_bundle / part).close()


def test_mtl_infer_says_it(quick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "one.png")
    assert infer([str(quick), str(tmp_path / "one.png")]) == 0
    assert "warning: " in (said := capsys.readouterr().err)
    assert "comes from a quick export, for development: verified on 8 images" in said


def test_mtl_doctor_says_it(quick: Path, article_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor([str(quick)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"a quick export, for development: {'; '.join(UNCHECKED)}" in said
    assert doctor([str(article_bundle)]) == 0
    assert "quick export" not in capsys.readouterr().out


def test_what_is_asked_for_is_there(
    article_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(article_checkpoint), *SIZE, "--quick", "--precision", "fp32,fp16", "--samples", "32", "--json"]
    assert main([*arguments, "-o", str(tmp_path / "more.mtl")]) == 0
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert {artifact["path"] for artifact in manifest["artifacts"]} == {"fp32.onnx", "fp16.onnx"}
    assert {row["samples"] for row in manifest["verification"]} == {32}
    assert manifest["provenance"]["unchecked"] == [UNCHECKED[1], UNCHECKED[2], UNCHECKED[4]]


def test_it_ends_like_any_other(article_checkpoint: Path, quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(article_checkpoint), "--quick", "--image-size", "64x64", "-o", str(quick)]) == 2
    assert "exists; pass --force to replace it" in capsys.readouterr().err
    assert main([str(quick), "--quick"]) == 2
    assert "--quick has no effect" in capsys.readouterr().err
