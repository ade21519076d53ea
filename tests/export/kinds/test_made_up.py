"""A kind that the toolkit does not have, added by three modules and one line in each registry: from checkpoint to accuracy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.kinds import registry as in_calibration
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.kinds import registry as in_export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import Task, TaskError, load
from mtl_deploy.runtime.bundle.kinds import registry as in_runtime
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.cli import main as infer
from tests.export.kinds.spot_network import Spots
from tests.export.kinds.spot_runtime import Spot, SpotOptions

REGISTRIES = {
    "runtime": in_runtime.KINDS,
    "calibration": in_calibration.KINDS,
    "export": in_export.KINDS,
}
TASKS = """\
[[task]]
name = "spot"
kind = "spot"
output = ["place", "score"]
grid = [32.0, 32.0]
least = 0.0
[[task]]
name = "shade"
kind = "multiclass"
"""


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """Add the kind, as a line in each registry does."""
    with pytest.MonkeyPatch.context() as patch:
        for room, kinds in REGISTRIES.items():
            patch.setitem(kinds, "spot", f"tests.export.kinds.spot_{room}")
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spot")
    torch.save(Spots().state_dict(), folder / "spots.pt")
    (folder / "tasks.toml").write_text(TASKS)
    options = ["--image-size", "32x32", "--fit", "letterbox", "--threads", "1", "--engine", "none", "-q"]
    model = ["--model", "tests.export.kinds.spot_network:Spots", "--tasks", str(folder / "tasks.toml")]
    assert export([str(folder / "spots.pt"), *model, *options, "-o", str(folder / "spots.mtl")]) == 0
    return folder / "spots.mtl"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    lines = ["file,spot.x,spot.y,shade"]
    for number in range(160):
        small = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(small).resize((96, 48), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
        lines.append(f"{number:03}.png,{random.uniform(0, 96):.2f},{random.uniform(0, 48):.2f},{number % 3}")
    (folder / "labels.csv").write_text("\n".join([*lines[:-1], "159.png,,,"]))
    return folder


def test_the_manifest_holds_the_kinds_own_fields_beside_the_others(bundle: Path) -> None:
    task = open_bundle(bundle).manifest.signature.task("spot")
    assert task.options == SpotOptions(grid=(32.0, 32.0), centre="corner", least=0.0)
    assert (task.output, task.size) == (("place", "score"), 3)
    record = json.loads((bundle / "manifest.json").read_text())["signature"]["tasks"][0]
    assert record == {
        "name": "spot",
        "kind": "spot",
        "size": 3,
        "output": ["place", "score"],
        "unit": None,
        "grid": [32.0, 32.0],
        "centre": "corner",
        "least": 0.0,
    }
    assert Task.from_dict(record) == task


def test_the_graphs_give_what_the_network_means_in_each_precision(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    rows = [row for row in manifest.verification if row["task"] == "spot"]
    assert {row["artifact"] for row in rows} == {
        "fp32.onnx",
        "fp16.onnx",
        "separate/spot.onnx",
        "separate/spot.fp16.onnx",
    }
    assert all(row["logit_error"] is not None for row in rows), "what is behind the decoding is not verified"
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        raw = Spots().eval()(network_input(pixels, Preprocessing(32, 32)))
    wanted = torch.cat([32 * raw["place"].sigmoid(), raw["score"].sigmoid()], dim=1).numpy()
    for graph in ("fp32.onnx", "separate/spot.onnx"):
        with load(bundle / graph) as model:
            np.testing.assert_allclose(model(pixels)["spot"], wanted, atol=1e-4)


def test_predictions_are_in_the_images_own_frame(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with load(bundle) as model:
        found = model.predict(photos / "000.png")["spot"]
        x, y, score = model(photos / "000.png")["spot"][0]
    assert isinstance(found.value, Spot)
    assert found.value.x == pytest.approx(3 * x, abs=1e-3)  # 96x48 fills 32x16 of the input, below 8 rows of border
    assert found.value.y == pytest.approx(3 * (y - 8), abs=1e-3)
    assert found.to_dict() == {"x": found.value.x, "y": found.value.y, "score": pytest.approx(score)}
    shown = tmp_path / "shown.png"
    assert infer([str(bundle), str(photos / "000.png"), "--show", str(shown)]) == 0
    assert str(found) in capsys.readouterr().out
    picture = np.asarray(Image.open(shown).convert("RGB")).astype(int)
    red = (picture[..., 0] > 250) & (picture[..., 1:] < 5).all(axis=-1)
    assert 4 < np.count_nonzero(red) < 1000, "the mark of the spot is not in the picture"


def test_labels_of_two_columns_a_metric_and_a_budget(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "int8.mtl"
    data = ["--calibration-data", str(photos), "--labels", str(photos / "labels.csv"), "--max-drop", "spot=100"]
    assert calibrate([str(bundle), *data, "-o", str(target), "--threads", "1", "-q"]) == 0
    matrix = AccuracyMatrix.from_dict(open_bundle(target).manifest.accuracy)
    cell = matrix.cell("spot", "fp32")
    assert set(cell.metrics) == {"distance", "hits"}
    assert cell.unit == "pixels"
    assert cell.samples <= 159
    assert matrix.cell("spot", "int8-cpu").drop is not None
    table = matrix.text()
    assert "mean distance, pixels" in table
    assert "within 4 pixels, %" in table
    labels = np.loadtxt(photos / "labels.csv", delimiter=",", skiprows=1, usecols=(1, 2), max_rows=159)
    with load(bundle) as model:
        places = np.array([model(photos / f"{number:03}.png")["spot"][0, :2] for number in range(159)])
    away = np.linalg.norm(places - (labels / 3 + (0, 8)), axis=1)
    assert away.min() <= cell.metrics["distance"] <= away.max()
    missing = tmp_path / "labels.csv"
    missing.write_text("file,spot.x\n000.png,3\n")
    capsys.readouterr()
    assert calibrate([str(bundle), "--calibration-data", str(photos), "--labels", str(missing), "-q"]) == 2
    assert "columns of task 'spot' are missing: spot.y" in capsys.readouterr().err


def test_a_word_on_the_command_line_holds_the_kinds_own_fields() -> None:
    task = parse_task("p=spot:mm;grid=8,4;centre=middle;output=a,2")
    assert task.options == SpotOptions(grid=(8, 4), centre="middle")
    assert (task.unit, task.outputs) == ("mm", ("a", 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p=spot", "a spot needs grid"),
        ("p=spot;grid=8,4;centre=top", "is not one of"),
        ("p=spot;grid=8,4;least=much", "least cannot be 'much'; write a probability"),
        ("p=spot;grid=8,4;least=2", "least 2 is no probability"),
        ("p=spot;grid=8,4;scale=2", "scale and offset, this is spot"),
        ("p=spot;grid=8,4;labels=a", "a spot has a unit, not labels"),
        ("p=spot;grid=8,4;argmax=true", "a spot has no argmax"),
        ("p=spot;grid=8,4;output=a,b,c", "a spot takes up to 2 outputs of the network"),
        ("p=regression;output=a,b", "a regression takes one output of the network"),
        ("p=regression;grid=8,4", "no field=value with one of these fields"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_task(text)
    with pytest.raises(TaskError, match="unknown field 'grid'; only spot has it"):
        Task.from_dict({"name": "p", "kind": "regression", "grid": [1, 2]})
