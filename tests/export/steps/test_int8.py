"""INT8 within an export, and engines of its graphs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from engine_graphs import needs_rtx
from PIL import Image

from mtl_deploy.calibration import command_line
from mtl_deploy.calibration.report import report
from mtl_deploy.export.cli import main
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.reference import read
from mtl_deploy.runtime.measured import measure
from mtl_deploy.runtime.measured.here import libraries
from mtl_deploy.runtime.measured.record import read as read_measured


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real digits, in UTKFace's way of naming, so that they have labels."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("pictures")
    for position, scan in enumerate(load_digits().images[:48]):
        grey = Image.fromarray(np.rint(scan * 255 / 16).astype(np.uint8)).resize((64, 64)).convert("RGB")
        grey.save(folder / f"{20 + position}_{position % 2}_{position % 5}_20170109142408{position:03}.jpg")
    shutil.copy(next(folder.iterdir()), folder / "61_1_20170109142408075.jpg")  # as three of the real data set's
    (folder / "30_1_2_20170109142408999.jpg").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def bundle(article_checkpoint: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "model.mtl"
    options = ["--image-size", "64x64", "--no-separate", "--calibration-method", "minmax", "--threads", "1"]
    data = ["--calibration-data", str(pictures)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "MEASURES", True)  # as the command does by itself
        patch.setattr(measure, "SECONDS", 0.0)
        assert main([str(article_checkpoint), *options, *data, "--engine", "none", "-o", str(target), "-q"]) == 0
    return target


def test_an_export_measures_the_graphs_on_this_machine(bundle: Path) -> None:
    (run,) = read_measured(bundle).runs
    found = {(one.path, one.backend) for one in run.candidates}
    assert found == {(path, name) for path in ("fp32.onnx", "int8.onnx", "int8-cpu.onnx") for name in libraries()}
    assert all(one.usable or "at first sight" in (one.fault or "") for one in run.candidates)
    text = report(open_bundle(bundle))
    assert "Measured in turn, 1 image per call" in text
    assert "precision='int8' takes int8" in text


def test_an_export_measures_int8_beside_pytorch(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert [item.path for item in manifest.artifacts] == ["fp32.onnx", "fp16.onnx", "int8.onnx", "int8-cpu.onnx"]
    cells = manifest.accuracy["cells"]
    assert list(dict.fromkeys(cell["variant"] for cell in cells)) == ["pytorch", "fp32", "fp16", "int8", "int8-cpu"]
    assert {cell["task"] for cell in cells} == {"age", "gender", "race"}
    assert manifest.accuracy["labelled"]
    assert all("mae" in cell["metrics"] for cell in cells if cell["task"] == "age")
    exact = [cell for cell in cells if cell["variant"] == "fp32"]
    assert all(abs(cell["drop"]) < 1e-3 for cell in exact)


def test_files_that_were_left_out_are_counted_and_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = open_bundle(bundle).manifest.calibration["left_out"]
    assert record["files"] == 2
    assert any("61_1_20170109142408075.jpg" in name for name in record["first"])
    text = report(open_bundle(bundle))
    assert "left out: 2 files\n  " in text
    assert "30_1_2_20170109142408999.jpg: " in text


def test_the_reference_holds_what_the_int8_graph_gives(bundle: Path) -> None:
    found = read(open_bundle(bundle))
    assert found is not None
    assert set(found.int8) == {"age", "gender", "race"}
    for task, values in found.int8.items():
        assert values.shape == found.outputs[task].shape
        assert not np.array_equal(values, found.outputs[task])


@needs_rtx
def test_engines_are_built_from_the_graph_in_tensorrts_style(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "engines.mtl"
    assert main([str(bundle), "--engine", "tensorrt-rtx", "--precision", "int8", "-o", str(target), "-q"]) == 0
    engines = [item for item in open_bundle(target).manifest.artifacts if item.backend == "tensorrt"]
    assert [(item.path, item.details["source"]) for item in engines] == [("int8.rtx.trt", "int8.onnx")]
    layers = engines[0].details["layers"]
    assert layers["int8"] >= 19
    assert set(layers) <= {"int8", "fp16", "fp32"}


def test_calibrating_again_drops_engines_of_the_former_graphs(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    from mtl_deploy.calibration.cli import main as calibrate

    if pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed"):
        target = tmp_path / "engines.mtl"
        assert main([str(bundle), "--engine", "tensorrt-rtx", "--precision", "fp32,int8", "-o", str(target), "-q"]) == 0
    data = ["--calibration-data", str(pictures), "--calibration-samples", "20", "-q", "--threads", "1"]
    assert calibrate([str(target), *data, "--calibration-method", "percentile"]) == 0
    manifest = open_bundle(target).manifest
    assert [item.path for item in manifest.artifacts if item.backend == "tensorrt"] == ["fp32.rtx.trt"]
    assert not (target / "int8.rtx.trt").exists()
    assert any(
        re.match(r"removed \d+ engines? of the previous INT8 graphs", note) for note in manifest.provenance["notes"]
    )


def test_int8_without_images_ends_before_any_work(article_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(article_checkpoint), "--precision", "fp32,int8"]) == 2
    assert "int8 needs real images to find ranges: pass --calibration-data" in capsys.readouterr().err


def test_an_export_whose_images_cannot_decide_a_budget_says_so_with_its_exit_code(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from checkpoints import save, small_network

    target = tmp_path / "model.mtl"
    options = ["--image-size", "32x32", "--no-separate", "--engine", "none", "--threads", "1", "-q", "-o", str(target)]
    data = ["--calibration-data", str(pictures), "--calibration-method", "minmax", "--max-drop", "gender=0.5%"]
    assert main([str(save(tmp_path, small_network().state_dict())), *options, *data]) == 3
    captured = capsys.readouterr()
    assert "undecided: 16 images cannot show that every budget is met: task 'gender'" in captured.err
    assert "Budgets undecided: 16 images" in captured.out
    assert open_bundle(target).manifest.calibration["budgets"]["outcome"] == "undecided"
    assert main([str(target), "--engine", "none", "-f", "-q"]) != 3  # what was said once is no outcome of other work
