"""``mtl-calibrate`` measures the graphs that it made on this machine, and keeps the figures beside the manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from measured_bundles import run_of, write_measured
from split_bundle import write_uneven_bundle

from mtl_deploy.calibration import command_line, timing
from mtl_deploy.calibration.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, digest, open_bundle
from mtl_deploy.runtime.errors import RunError
from mtl_deploy.runtime.measured import measure
from mtl_deploy.runtime.measured.here import libraries, processor
from mtl_deploy.runtime.measured.record import read

MakeBundle = Callable[..., Path]


@pytest.fixture(autouse=True)
def _measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command does by default, in few rounds."""
    monkeypatch.setattr(command_line, "MEASURES", True)
    monkeypatch.setattr(measure, "SECONDS", 0.0)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8))
    return ["--calibration-data", str(tmp_path / "images.npy"), "--calibration-method", "minmax", "-q"]


@pytest.fixture
def bundle(make_bundle: MakeBundle, tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "model.mtl", work=2)


def test_every_candidate_is_measured_kept_and_reported(
    bundle: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), *options]) == 0
    (run,) = read(bundle).runs
    manifest = open_bundle(bundle).manifest
    assert {(one.path, one.backend) for one in run.candidates} == {
        (path, backend) for path in ("fp32.onnx", "int8.onnx", "int8-cpu.onnx") for backend in libraries()
    }
    assert {one.sha256 for one in run.candidates} <= {artifact.sha256 for artifact in manifest.artifacts}
    assert (run.processor, run.libraries, run.threads) == (processor(), libraries(), None)
    said = capsys.readouterr().out
    assert f"Measured in turn, 1 image per call, on {run.on} ({MEASURED_FILE}):" in said
    assert "precision='int8' takes int8" in said
    with load(bundle, precision="int8") as model:
        assert "measured here: " in model.why
        assert model.why in said


def test_the_manifest_is_the_same_with_and_without(bundle: Path, options: list[str], tmp_path: Path) -> None:
    for name, more in {"with": [], "without": ["--no-measure"]}.items():
        assert main([str(bundle), *options, *more, "-o", str(tmp_path / name / "model.mtl")]) == 0
    first, second = (tmp_path / name / "model.mtl" for name in ("with", "without"))
    files = {path.relative_to(second) for path in second.rglob("*")}
    assert {path.relative_to(first) for path in first.rglob("*")} == {*files, Path(MEASURED_FILE)}
    for path in files:
        assert not (second / path).is_file() or digest(first / path) == digest(second / path)


def test_threads_are_those_of_the_command(bundle: Path, options: list[str]) -> None:
    assert main([str(bundle), *options, "--threads", "1"]) == 0
    assert [run.threads for run in read(bundle).runs] == [1]
    with load(bundle, precision="int8", threads=1) as model:
        assert "measured here: " in model.why


def test_measurements_of_other_machines_stay_while_the_graphs_do(bundle: Path, options: list[str]) -> None:
    assert main([str(bundle), *options]) == 0
    here = read(bundle).runs[0]
    write_measured(bundle, run_of(bundle, libraries={"onnxruntime": "1.20.0"}), here)
    assert main([str(bundle), *options]) == 0  # the same graphs again
    assert [dict(run.libraries) for run in read(bundle).runs] == [{"onnxruntime": "1.20.0"}, libraries()]
    assert main([str(bundle), *options, "--no-measure"]) == 0
    assert len(read(bundle).runs) == 2
    assert main([str(bundle), *options, "--no-measure", "--weight-bits", "7"]) == 0  # other graphs
    assert not (bundle / MEASURED_FILE).exists()


def test_a_damaged_file_is_replaced(bundle: Path, options: list[str]) -> None:
    (bundle / MEASURED_FILE).write_bytes(b"{")
    assert main([str(bundle), *options]) == 0
    assert len(read(bundle).runs) == 1
    (bundle / MEASURED_FILE).write_bytes(b"{")
    assert main([str(bundle), *options, "--no-measure"]) == 0
    assert not (bundle / MEASURED_FILE).exists()


def test_a_measurement_that_fails_takes_nothing_with_it(
    bundle: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RunError("ONNX Runtime failed: no more threads")

    monkeypatch.setattr(timing, "measure", fails)
    assert main([str(bundle), *options]) == 0
    assert "warning: the graphs were not measured on this machine: ONNX Runtime failed" in capsys.readouterr().err
    assert not (bundle / MEASURED_FILE).exists()
    assert any(one.precision == "int8" for one in open_bundle(bundle).manifest.artifacts)


def test_a_bundle_that_cannot_be_written_is_calibrated_and_measured_elsewhere(
    bundle: Path, options: list[str], tmp_path: Path
) -> None:
    for path in (*bundle.rglob("*"), bundle):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert main([str(bundle), *options, "-o", str(tmp_path / "out" / "model.mtl")]) == 0
    finally:
        for path in (bundle, *bundle.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert len(read(tmp_path / "out" / "model.mtl").runs) == 1
    assert not (bundle / MEASURED_FILE).exists()


def test_with_evaluate_only_there_is_nothing_to_leave_out(
    bundle: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(bundle), *options[:2], "--evaluate-only", "--no-measure"]) == 2
    assert "--no-measure" in capsys.readouterr().err


def test_the_json_has_the_measurement(bundle: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundle), *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == json.loads((bundle / MEASURED_FILE).read_text())["runs"][-1]
    shutil.rmtree(bundle)


def test_parts_run_in_the_style_of_what_runs_them_whatever_was_measured(tmp_path: Path, options: list[str]) -> None:
    pytest.importorskip("openvino")
    bundle = write_uneven_bundle(tmp_path / "a.mtl")
    assert main([str(bundle), *options, "--no-measure"]) == 0
    write_measured(bundle, run_of(bundle))  # in TensorRT's style OpenVINO is faster; parts run on ONNX Runtime
    with load(bundle, precision="int8") as model:
        assert model.artifact is not None
        assert (model.artifact.path, model.backend.name) == ("int8.onnx", "openvino")
    with load(bundle, precision="int8", split=True) as model:
        assert model.artifact is not None
        assert (model.artifact.path, model.backend.name) == ("int8-cpu.onnx", "onnxruntime")
