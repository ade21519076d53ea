"""INT8 as a user makes it, on real networks and real digits: what every task keeps, what is written, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import digest, open_bundle
from mtl_deploy.runtime.onnx_format.graph import read_graph

if TYPE_CHECKING:
    from hard_networks import Deployed

pytestmark = pytest.mark.slow
INT8 = ("int8", "int8-cpu")


def calibrate(network: Deployed, target: Path, *options: str) -> Any:
    """Run mtl-calibrate on a network's bundle with digits that it has never seen; return the new manifest."""
    images = network.folder / "test"
    data = ["--calibration-data", str(images), "--labels", str(images / "labels.csv")]
    arguments = [str(network.bundle), *data, "-o", str(target), "-f", "-q", "--threads", "1"]
    assert main([*arguments, *options]) == 0
    return open_bundle(target).manifest


def drops(manifest: Any, variant: str) -> dict[str, float]:
    matrix = AccuracyMatrix.from_dict(manifest.accuracy)
    return {task.name: float(matrix.cell(task.name, variant).drop or 0.0) for task in manifest.tasks}


@pytest.fixture(scope="module")
def easy(digits_resnet: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's network, with INT8 graphs."""
    target = tmp_path_factory.mktemp("easy") / "model.mtl"
    calibrate(digits_resnet, target)
    return target


def test_int8_on_processors_keeps_every_task_of_the_demo(easy: Path) -> None:
    manifest = open_bundle(easy).manifest
    matrix = AccuracyMatrix.from_dict(manifest.accuracy)
    assert matrix.labelled
    lost = drops(manifest, "int8-cpu")
    assert lost["digit"] <= 0.005
    assert lost["parity"] <= 0.005
    before = matrix.cell("ink", "fp32").metrics["mae"]
    assert lost["ink"] <= 0.01 * before
    held_out = manifest.calibration["held_out"]
    assert held_out + manifest.calibration["images"] == 360
    assert all(cell.samples == held_out for cell in matrix.cells)


def test_every_precision_is_measured_a_task_at_a_time(easy: Path) -> None:
    matrix = AccuracyMatrix.from_dict(open_bundle(easy).manifest.accuracy)
    assert {(cell.task, cell.variant) for cell in matrix.cells} == {
        (task, variant) for task in ("digit", "parity", "ink") for variant in ("fp32", "fp16", *INT8)
    }
    for cell in matrix.cells:
        wanted = {"mae"} if cell.task == "ink" else {"accuracy", "balanced_accuracy", "f1"}
        assert set(cell.metrics) == wanted
        if cell.variant != "fp32":
            assert cell.drop_low is not None
            assert cell.drop is not None
            assert cell.drop_high is not None
            assert cell.drop_low <= cell.drop <= cell.drop_high


def test_both_graphs_stand_in_the_manifest_and_run(easy: Path, digits_resnet: Deployed) -> None:
    manifest = open_bundle(easy).manifest
    found = {item.precision: item for item in manifest.artifacts if item.precision in INT8}
    assert {item.path for item in found.values()} == {"int8.onnx", "int8-cpu.onnx"}
    for item in found.values():
        assert item.sha256 == digest(easy / item.path)
        assert item.opset == read_graph((easy / item.path).read_bytes()).opset
    rows = {(row["artifact"], row["task"]): row for row in manifest.verification}
    assert {artifact for artifact, _ in rows} >= {"int8.onnx", "int8-cpu.onnx"}
    for (artifact, _), row in rows.items():
        assert row.get("against") == ("fp32.onnx" if artifact in ("int8.onnx", "int8-cpu.onnx") else None)
        assert row["excess"] <= 1
    images = digits_resnet.evaluation.images[:8]
    with load(easy, precision="fp32") as exact, load(easy, precision="int8", providers=["CPU"]) as model:
        assert model.artifact is not None
        assert model.artifact.path == "int8-cpu.onnx"  # by backend
        assert [task.name for task in model.tasks] == [task.name for task in exact.tasks]
        for task, values in exact(images).items():
            np.testing.assert_allclose(model(images)[task], values, atol=0.1 * max(1.0, float(np.abs(values).max())))
    with load(easy / "int8.onnx") as lone:
        assert lone.predict(images[0])["ink"].unit == "%"


def test_int8_is_never_run_unasked(easy: Path) -> None:
    with load(easy) as model:
        assert model.artifact is not None
        assert model.artifact.precision == "fp32"


@pytest.mark.extended
def test_min_max_costs_the_mobile_network_and_max_drop_brings_it_back(
    digits_mobile: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = calibrate(digits_mobile, tmp_path / "plain.mtl", "--calibration-method", "minmax")
    lost = {variant: drops(plain, variant) for variant in INT8}
    assert any(lost[variant][task] > 0.02 for variant in INT8 for task in ("digit", "parity"))
    capsys.readouterr()
    budget = ["--max-drop", "digit=6%,parity=6%,ink=0.5"]  # what 120 images can show
    kept = calibrate(digits_mobile, tmp_path / "kept.mtl", "--calibration-method", "minmax", *budget)
    (artifact,) = [item for item in kept.artifacts if item.path == "int8.onnx"]
    found = artifact.details["search"]
    assert found["outcome"] == "met"
    assert all(found["drops"][task] <= found["drop_high"][task] <= found["budgets"][task] for task in found["budgets"])
    assert 0 < len(kept.calibration["kept"]) < len(found["trail"])
    assert set(kept.calibration["kept"]) <= set(artifact.details["kept"])
    for variant in INT8:  # on images that neither calibrated nor chose
        after = drops(kept, variant)
        assert after["digit"] < 0.03
        assert sum(after[task] for task in ("digit", "parity")) < sum(
            lost[variant][task] for task in ("digit", "parity")
        )
    out = capsys.readouterr().out
    assert "Budgets met: 120 images that were not used to choose layers show every task within its budget, with " in out
    assert f"In higher precision: {', '.join(kept.calibration['kept'])}; int8-cpu takes " in out


def test_an_outlier_in_one_head_keeps_layers_of_that_head_alone(digits_outlier: Deployed, tmp_path: Path) -> None:
    plain = calibrate(digits_outlier, tmp_path / "plain.mtl", "--calibration-method", "minmax")
    lost = drops(plain, "int8")
    assert lost["ink"] > 0.5
    assert max(lost["digit"], lost["parity"]) <= 0.02
    kept = calibrate(digits_outlier, tmp_path / "kept.mtl", "--calibration-method", "minmax", "--max-drop", "ink=0.2")
    assert kept.calibration["kept"]
    assert drops(kept, "int8")["ink"] < 0.3
    from mtl_deploy.calibration.search.find_skip import _heads

    graph = read_graph((tmp_path / "kept.mtl" / "fp32.onnx").read_bytes())
    serves = _heads(graph, kept.calibration["kept"], kept.signature)
    assert set(serves.values()) == {"ink"}


def test_a_budget_that_cannot_be_met_names_the_task_and_leaves_the_bundle(
    digits_resnet: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "model.mtl"
    shutil.copytree(digits_resnet.bundle, bundle)
    before = {file.name: digest(file) for file in bundle.iterdir()}
    data = ["--calibration-data", str(digits_resnet.folder / "test"), "--calibration-samples", "64"]  # without labels
    assert main([str(bundle), *data, "--max-drop", "ink=0", "-q", "--threads", "1"]) == 1
    assert "task 'ink' drops by " in capsys.readouterr().err
    assert {file.name: digest(file) for file in bundle.iterdir()} == before


def test_ranges_are_kept_and_used_again(
    easy: Path, digits_resnet: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "model.mtl"
    shutil.copytree(easy, bundle)
    first = open_bundle(bundle).manifest
    images = digits_resnet.folder / "test"
    data = ["--calibration-data", str(images), "--labels", str(images / "labels.csv"), "-q", "--threads", "1"]
    assert main([str(bundle), *data]) == 0
    assert ", cached ranges reused." in capsys.readouterr().out
    again = open_bundle(bundle).manifest
    graphs = {item.path: item.sha256 for item in first.artifacts}
    assert {item.path: item.sha256 for item in again.artifacts} == graphs  # the same bytes
    assert again.calibration["coverage"] == first.calibration["coverage"]

    assert main([str(bundle), *data, "--calibration-samples", "100"]) == 0
    assert "cached ranges are stale (other images)" in capsys.readouterr().out
    (bundle / "calibration.json").write_text("{}")
    assert main([str(bundle), *data, "--calibration-samples", "100"]) == 0
    assert "cached ranges are damaged" in capsys.readouterr().out


def test_without_labels_agreement_and_error_are_measured(
    digits_resnet: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.mtl"
    data = ["--calibration-data", str(digits_resnet.folder / "test"), "--calibration-samples", "80"]
    arguments = [
        str(digits_resnet.bundle),
        *data,
        "-o",
        str(target),
        "-q",
        "--threads",
        "1",
        "--weight-bits",
        "7",
        "--json",
    ]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["accuracy"]["labelled"]
    cells = {(cell["task"], cell["variant"]): cell for cell in found["accuracy"]["cells"]}
    assert cells["digit", "int8-cpu"]["agreement"] > 0.9
    assert cells["ink", "int8-cpu"]["mean_error"] > 0
    assert any("images" in text for text in found["calibration"]["warnings"])  # too few
    weights = read_graph((target / "int8-cpu.onnx").read_bytes()).initializers.values()
    integers = [tensor.values() for tensor in weights if tensor.element_type == "int8"]
    assert integers
    assert all(int(array.min()) >= -64 and int(array.max()) <= 64 for array in integers if array is not None)


def test_separate_int8_models_give_what_the_shared_one_gives(
    article_bundle: Path, digits_resnet: Deployed, tmp_path: Path
) -> None:
    target = tmp_path / "model.mtl"
    data = ["--calibration-data", str(digits_resnet.folder / "test"), "--calibration-samples", "24"]
    options = ["--calibration-method", "minmax", "-o", str(target), "-q", "--threads", "1"]
    assert main([str(article_bundle), *data, *options]) == 0
    images = digits_resnet.evaluation.images[:3]
    for precision in INT8:
        with load(target / f"{precision}.onnx", providers=["CPU"]) as shared:
            expected = shared(images)
        for task in ("age", "gender", "race"):
            with load(target / "separate" / f"{task}.{precision}.onnx", providers=["CPU"]) as alone:
                assert [each.name for each in alone.tasks] == [task]
                np.testing.assert_allclose(alone(images)[task], expected[task], rtol=1e-4, atol=1e-5)


def test_calibrating_needs_no_torch(article_bundle: Path, digits_resnet: Deployed, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None
from mtl_deploy.calibration.cli import main
sys.exit(main([{str(article_bundle)!r}, "--calibration-data", {str(digits_resnet.folder / "test")!r},
    "--calibration-samples", "8", "--calibration-method", "mse", "-o", {str(tmp_path / "model.mtl")!r}, "-q"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "ranges by mse, found on 4 images." in result.stdout


def test_int8_without_images_is_refused(
    make_bundle: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle())]) == 2
    assert "INT8 needs real images to find ranges on: pass --calibration-data" in capsys.readouterr().err
    assert main([str(make_bundle(tmp_path / "other.mtl")), "--calibration-data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere: No such file" in capsys.readouterr().err
