"""Head pose as HopeNet has it, and an angle all around, from the network's file to accuracy in INT8; and wrong graphs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import wild
from onnx import numpy_helper
from PIL import Image

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.graph.expectation import is_expectation
from mtl_deploy.calibration.int8.weighted import last_of_heads
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.engines.check import _compare
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle import reference
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import VerificationError
from mtl_deploy.runtime.kinds.distribution.values import apart
from tests.export.kinds.verifying import constants, node_called, verified

COUNT = 160
BINS = 3 * np.arange(66) - 99


class Around(torch.nn.Module):
    """A direction in eight bins all around, an age in five uneven ones, and the age's probabilities."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = torch.nn.Conv2d(3, 16, 5, stride=4)
        self.direction, self.age = torch.nn.Linear(16, 8), torch.nn.Linear(16, 5)
        for head in (self.direction, self.age):
            torch.nn.init.normal_(head.weight, std=6)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.body(image).relu().mean((2, 3))
        age = self.age(found)
        return {"direction": self.direction(found), "age": age, "shares": age.softmax(1), "logs": age.log_softmax(1)}


TASKS = """
[[task]]
name = "direction"
kind = "distribution"
values = "0:360:45"
period = 360
circular = true
unit = "degrees"
[[task]]
name = "age"
kind = "distribution"
values = [0, 3, 12, 20, 70]
unit = "years"
[[task]]
name = "shares"
kind = "distribution"
values = [0, 3, 12, 20, 70]
[[task]]
name = "logs"
kind = "distribution"
values = [0, 3, 12, 20, 70]
"""


@pytest.fixture(scope="module")
def hopenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hopenet")
    (folder / "tasks.toml").write_text(wild.TASKS["hopenet"])
    given = ["--model", "wild:hopenet", "--tasks", str(folder / "tasks.toml"), "--image-size", "64x64"]
    quiet = ["--engine", "none", "--threads", "1", "-q", "-o", str(folder / "x.mtl")]
    assert export([str(wild.checkpoint("hopenet", folder)), *given, *wild.OPTIONS["hopenet"], *quiet]) == 0
    return folder / "x.mtl"


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("around")
    assert exported(folder, TASKS) == 0
    return folder / "x.mtl"


def exported(folder: Path, tasks: str, *more: str) -> int:
    torch.save(Around().state_dict(), folder / "x.pt")
    (folder / "tasks.toml").write_text(tasks)
    model = ["--model", "tests.export.kinds.test_distribution:Around", "--tasks", str(folder / "tasks.toml")]
    quiet = ["--image-size", "64x64", "--engine", "none", "--threads", "1", "-q", "-o", str(folder / "x.mtl")]
    return export([str(folder / "x.pt"), *model, *quiet, *more])


@pytest.fixture(scope="module")
def photos(hopenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    lines = ["file,yaw,pitch,roll"]
    with load(hopenet) as model:
        for number in range(COUNT):
            small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            path = folder / f"{number:03}.png"
            Image.fromarray(small).resize((72, 72), Image.Resampling.BICUBIC).save(path)
            said = model.predict(path)
            numbers = [float(said[name].value) + random.choice((-1, 1)) + 360 for name in ("yaw", "pitch", "roll")]
            lines.append(f"{path.name},{','.join(f'{one:.6f}' for one in numbers)}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_a_graph_gives_the_angle_and_the_bins(hopenet: Path) -> None:
    manifest = open_bundle(hopenet).manifest
    rows = [row for row in manifest.verification if row["task"] == "yaw"]
    assert {"fp32.onnx", "fp16.onnx"} <= {row["artifact"] for row in rows}
    assert all(row["logit_error"] is not None for row in rows)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = wild.trained("hopenet")(network_input(pixels, manifest.signature.preprocessing))
    for path, allowed in (("fp32.onnx", 1e-3), ("separate/yaw.onnx", 1e-3), ("fp16.onnx", 0.05)):
        with load(hopenet / path) as model:
            found = model(pixels)
        for name in ("yaw",) if "yaw" in path else ("yaw", "pitch", "roll"):
            shares = logits[("yaw", "pitch", "roll").index(name)].double().softmax(1).numpy()
            np.testing.assert_allclose(found[name][:, 0], shares @ BINS, atol=allowed)
            np.testing.assert_allclose(found[name][:, 1:], shares, atol=allowed)


def test_an_engine_is_judged_by_the_number_and_by_the_bins_each_on_its_own_scale(around: Path) -> None:
    bundle = open_bundle(around)
    held = reference.read(bundle)
    assert held is not None
    signature = bundle.manifest.signature
    for name, column in (("age", 0), ("direction", 1)):
        task, truth, floors = signature.task(name), held.outputs[name], held.floors[name]
        assert floors.shape[1] == {"age": 2, "direction": 3}[name]

        def judged(
            found: np.ndarray, task: Any = task, truth: np.ndarray = truth, floors: np.ndarray = floors
        ) -> float:
            row = _compare("x.trt", task, signature, found, truth, 0.01, None, floors, exact=False)
            assert row.excess is not None
            return row.excess

        assert judged(truth) == 0
        little, off, bins = truth.copy(), truth.copy(), truth.copy()
        little[:, column] += 1e-4 * truth[:, column].std()
        off[:, column] += 0.1 * truth[:, column].std()
        bins[:, -5:] = np.roll(truth[:, -5:], 1, axis=1)
        assert judged(little) < 0.1
        assert judged(off) > 1
        assert judged(bins) > 1


@pytest.mark.extended
def test_benchmarked_once_the_outputs_agree(around: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--starts", "0", "--no-where", "--duration", "0.1", "--threads", "1", "--quiet", "--isolation", "none"]
    assert bench([str(around), *few, "--no-memory", "--json", "-"]) == 0
    assert set(json.loads(capsys.readouterr().out)["contestants"]) >= {"shared", "separate"}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_everything_behind_the_logits_is_in_float32(around: Path, precision: str) -> None:
    graph = onnx.load(around / f"{precision}.onnx").graph
    typed = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    behind = [node for node in graph.node if node.name.startswith("decode/")]
    assert {node.op_type for node in behind} >= {"Softmax", "Exp", "Mul", "ReduceSum", "Concat"}
    half = [
        name for node in behind for name in (*node.input, *node.output) if typed.get(name) == onnx.TensorProto.FLOAT16
    ]
    assert not half


def test_the_layer_that_gives_the_logits_is_the_last_one_of_its_head(around: Path) -> None:
    import onnx_ir as ir

    graph = ir.from_proto(onnx.load(around / "fp32.onnx")).graph
    last = last_of_heads(graph)
    sizes = {node.outputs[0].shape[-1] for node in last if node.outputs[0].shape is not None}
    assert {5, 8} <= sizes
    assert not any(is_expectation(node) for node in graph)


def test_circles_and_what_the_network_applied_itself(around: Path, tmp_path: Path) -> None:
    manifest = open_bundle(around).manifest
    by_name = {task.name: task for task in manifest.tasks}
    assert [by_name[name].activation for name in ("age", "shares", "logs")] == ["none", "softmax", "log_softmax"]
    pixels = np.random.default_rng(3).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    pixels[1:] //= np.arange(1, 5, dtype=np.uint8)[:, None, None, None]
    with load(around / "fp32.onnx") as model:
        said = model.predict(list(pixels))
        raw = model(pixels)
    np.testing.assert_allclose(raw["age"], raw["shares"], atol=1e-4)
    np.testing.assert_allclose(raw["age"], raw["logs"], atol=1e-4)
    with torch.inference_mode():
        logits = Around().double()(network_input(pixels, manifest.signature.preprocessing).double())["direction"]
    vector = (logits.softmax(1).numpy() * np.exp(1j * np.radians(45 * np.arange(8)))).sum(axis=1)
    for prediction, wanted in zip(said, np.degrees(np.angle(vector)), strict=True):
        value = np.array(prediction["direction"].value)
        assert 0 <= value < 360
        assert float(apart(by_name["direction"], value, np.array(wanted))) < 0.01
    assert exported(tmp_path, TASKS, "--outputs", "logits", "--precision", "fp32", "--no-separate") == 0
    with load(tmp_path / "x.mtl") as model:
        plain = model.predict(list(pixels))
    for one, other in zip(plain, said, strict=True):
        for name in by_name:
            assert float(apart(by_name[name], np.array(one[name].value), np.array(other[name].value))) < 1e-3
            np.testing.assert_allclose(one[name].probabilities, other[name].probabilities, atol=1e-5)


def _shift(graph: onnx.ModelProto) -> None:
    """All bins one step too far."""
    table = constants(graph)["decode.age.mean"]
    table.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(table), 1, axis=1), table.name))


def _one_bin(graph: onnx.ModelProto) -> None:
    """One bin a little off."""
    table = constants(graph)["decode.age.mean"]
    values = numpy_helper.to_array(table).copy()
    values[0, 2] += 1
    table.CopyFrom(numpy_helper.from_array(values, table.name))


def _other_way(graph: onnx.ModelProto) -> None:
    """A circle the other way round."""
    table = constants(graph)["decode.direction.sine"]
    table.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(table), table.name))


def _swapped(graph: onnx.ModelProto) -> None:
    """Sine first."""
    join = node_called(graph, "decode/direction/number_and_bins")
    join.input[0], join.input[1] = join.input[1], join.input[0]


def _bins_first(graph: onnx.ModelProto) -> None:
    """The probabilities before the number."""
    join = node_called(graph, "decode/age/number_and_bins")
    join.input[0], join.input[1] = join.input[1], join.input[0]


@pytest.mark.parametrize("damage", [_shift, _one_bin, _other_way, _swapped, _bins_first])
def test_a_wrong_graph_does_not_pass(around: Path, damage: Callable[[onnx.ModelProto], None]) -> None:
    signature = open_bundle(around).manifest.signature
    graph = onnx.load(around / "fp32.onnx")
    verified(graph, signature, Around())
    damage(graph)
    with pytest.raises(VerificationError):
        verified(graph, signature, Around())


def test_calibrated_within_a_budget_on_the_circle_and_compared(
    hopenet: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "int8.mtl"
    data = ["--calibration-data", str(photos), "--labels", str(photos / "labels.csv")]
    budget = ["--max-drop", "yaw=5,pitch=5,roll=500%"]
    assert calibrate([str(hopenet), *data, *budget, "-o", str(target), "--threads", "1", "-q"]) == 0
    matrix = AccuracyMatrix.from_dict(open_bundle(target).manifest.accuracy)
    cell = matrix.cell("yaw", "fp32")
    assert cell.metrics == {"mae": pytest.approx(1, abs=0.01)}  # labels are one degree off, and a turn
    assert cell.unit == "degrees"
    assert matrix.cell("yaw", "int8-cpu").drop is not None
    assert "mean absolute error, degrees" in matrix.text()
    capsys.readouterr()
    assert calibrate(["compare", str(hopenet), str(target), *data, "--precision", "fp32,int8-cpu", "--json"]) == 0
    rows = {row["task"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert (rows["yaw"]["metric"], rows["yaw"]["unit"]) == ("mae", "degrees")
    assert rows["yaw"]["first"]["mae"] == pytest.approx(1, abs=0.01)
    image = str(photos / "000.png")
    with load(target) as model:
        said = model.predict(image)["yaw"]
    assert infer([str(target), image, "--show", str(tmp_path / "shown.png")]) == 0
    assert str(said) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            'name = "age"\nvalues = "0:101:1"',
            "values '0:101:1' are 101 (from 0 to 100, the stop is left out), but the network",
        ),
        ('name = "age"', "a distribution needs values"),
        ('name = "age"\nvalues = [0, 3, 12, 20, 70]\nactivation = "softmax"', "softmax"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(
    fields: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(tmp_path, f'[[task]]\nkind = "distribution"\n{fields}\n') == 2
    assert message in capsys.readouterr().err
