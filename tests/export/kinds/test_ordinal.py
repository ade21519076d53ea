"""An ordinal age as CORAL gives it, and CORN, from the network's file to accuracy in INT8; and wrong graphs."""

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
from mtl_deploy.calibration.int8.weighted import last_of_heads
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import VerificationError
from tests.export.kinds.verifying import constants, verified

COUNT = 160
HIGHER = {"coral": 1, "given": 2, "heads": 3}


class Ranks(torch.nn.Module):
    """Five thresholds as CORN's logits and as their sigmoids, and for CORAL more that lie higher, the last ones as a list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body, self.head = torch.nn.Conv2d(3, 16, 5, stride=4), torch.nn.Linear(16, 5)
        torch.nn.init.normal_(self.head.weight, std=5)
        torch.nn.init.constant_(self.head.bias, 1)

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        found = self.head(self.body(image).relu().mean((2, 3)))
        return {
            "corn": found,
            "shares": found.sigmoid(),
            "coral": found - 1,
            "given": (found - 2).sigmoid(),
            "heads": list((found - 3).split(1, 1)),
        }


TASKS = """
[[task]]
name = "corn"
kind = "ordinal"
decoding = "corn"
values = "0:6:1"
[[task]]
name = "shares"
kind = "ordinal"
decoding = "corn"
[[task]]
name = "coral"
kind = "ordinal"
labels = ["a", "b", "c", "d", "e", "f"]
output = "coral"
[[task]]
name = "given"
kind = "ordinal"
[[task]]
name = "heads"
kind = "ordinal"
"""


def exported(folder: Path, tasks: str, *more: str) -> int:
    torch.save(Ranks().state_dict(), folder / "x.pt")
    (folder / "tasks.toml").write_text(tasks)
    model = ["--model", "tests.export.kinds.test_ordinal:Ranks", "--tasks", str(folder / "tasks.toml")]
    quiet = ["--image-size", "64x64", "--engine", "none", "--threads", "1", "-q", "-o", str(folder / "x.mtl")]
    return export([str(folder / "x.pt"), *model, *quiet, *more])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    assert exported(folder, TASKS) == 0
    return folder / "x.mtl"


@pytest.fixture(scope="module")
def coral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coral")
    (folder / "tasks.toml").write_text(wild.TASKS["coral"])
    given = ["--model", "wild:coral", "--tasks", str(folder / "tasks.toml"), "--image-size", "120x120"]
    quiet = ["--engine", "none", "--threads", "1", "-q", "-o", str(folder / "x.mtl")]
    assert export([str(wild.checkpoint("coral", folder)), *given, *wild.OPTIONS["coral"], *quiet]) == 0
    return folder / "x.mtl"


def sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))


def pictures() -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    pixels[1:] //= np.arange(1, 8, dtype=np.uint8)[:, None, None, None]
    return pixels


def test_every_precision_gives_the_probability_of_passing_each_threshold(ranks: Path) -> None:
    manifest = open_bundle(ranks).manifest
    assert [task.activation for task in manifest.tasks] == ["none", "sigmoid", "none", "sigmoid", "none"]
    rows = [row for row in manifest.verification if row["artifact"] == "fp16.onnx"]
    assert all(row["logit_error"] is not None for row in rows)
    pixels = pictures()
    with torch.inference_mode():
        logits = Ranks().double()(network_input(pixels, manifest.signature.preprocessing).double())["corn"].numpy()
    each = sigmoid(logits)
    for path, allowed in (("fp32.onnx", 1e-5), ("separate/corn.onnx", 1e-5), ("fp16.onnx", 0.02)):
        with load(ranks / path) as model:
            found = model(pixels)
        for name in found:
            wanted = np.cumprod(each, axis=1) if name in ("corn", "shares") else sigmoid(logits - HIGHER[name])
            np.testing.assert_allclose(found[name], wanted, atol=allowed)
    with load(ranks) as model:
        said = model.predict(list(pixels))
    wanted_ranks = (np.cumprod(each, axis=1) > 0.5).sum(axis=1)
    assert [each["corn"].value for each in said] == wanted_ranks.tolist()
    assert len(set(wanted_ranks)) > 1
    assert [each["coral"].label for each in said] == ["abcdef"[n] for n in (logits > 1).sum(axis=1)]


def test_a_threshold_that_is_never_passed_makes_no_nan(ranks: Path) -> None:
    graph = onnx.load(ranks / "fp32.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("head.bias"):
            tensor.CopyFrom(numpy_helper.from_array(np.array([1, -200, 200, 1, 1], np.float32), tensor.name))
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    found = dict(
        zip([each.name for each in session.get_outputs()], session.run(None, {"image": pictures()}), strict=True)
    )
    for name in ("corn", "shares"):
        assert np.isfinite(found[name]).all()
        assert found[name][:, 1:].max() < 1e-6


def test_logits_are_decoded_by_the_runtime_to_the_same(ranks: Path, tmp_path: Path) -> None:
    assert exported(tmp_path, TASKS, "--outputs", "logits", "--precision", "fp32", "--no-separate") == 0
    with load(tmp_path / "x.mtl") as plain, load(ranks / "fp32.onnx") as decoded:
        for one, other in zip(plain.predict(list(pictures())), decoded.predict(list(pictures())), strict=True):
            assert one == other
            for name in one:
                np.testing.assert_allclose(one[name].probabilities, other[name].probabilities, atol=1e-5)


def test_what_is_behind_the_last_layer_looks_like_no_layer_and_is_in_float32(ranks: Path) -> None:
    import onnx_ir as ir

    graph = ir.from_proto(onnx.load(ranks / "fp32.onnx")).graph
    assert {node.outputs[0].shape[-1] for node in last_of_heads(graph) if node.outputs[0].shape is not None} == {5}
    half = onnx.load(ranks / "fp16.onnx").graph
    typed = {value.name: value.type.tensor_type.elem_type for value in (*half.value_info, *half.output)}
    behind = [node for node in half.node if node.name.startswith("decode/")]
    assert {node.op_type for node in behind} >= {"Softplus", "Exp", "ReduceSum", "Sigmoid"}
    assert not [n for node in behind for n in (*node.input, *node.output) if typed.get(n) == onnx.TensorProto.FLOAT16]


@pytest.mark.extended
def test_benchmarked_once_the_outputs_agree(ranks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--starts", "0", "--no-where", "--duration", "0.1", "--threads", "1", "--quiet", "--isolation", "none"]
    assert bench([str(ranks), *few, "--no-memory", "--json", "-"]) == 0
    assert set(json.loads(capsys.readouterr().out)["contestants"]) >= {"shared", "separate"}


def _off_by_one(graph: onnx.ModelProto) -> None:
    """Each product one threshold short."""
    table = constants(graph)["decode.corn.up_to"]
    table.CopyFrom(numpy_helper.from_array(np.tri(5, k=-1, dtype=np.float32)[None], table.name))


def _turned(graph: onnx.ModelProto) -> None:
    """The thresholds in the other order."""
    for tensor in graph.graph.initializer:
        if tensor.name.endswith(("head.weight", "head.bias")):
            values = numpy_helper.to_array(tensor)
            axis = values.shape.index(5)
            tensor.CopyFrom(numpy_helper.from_array(np.flip(values, axis).copy(), tensor.name))


def _next_bias(graph: onnx.ModelProto) -> None:
    """Each threshold with the bias of the next."""
    for tensor in graph.graph.initializer:
        if tensor.name.endswith("head.bias"):
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values + np.linspace(0, 0.1, 5)).astype(np.float32), tensor.name))


def whole(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    found = Ranks()(tensor)
    return {**found, "heads": torch.cat(found["heads"], dim=1)}


@pytest.mark.parametrize("damage", [_off_by_one, _turned, _next_bias])
def test_a_wrong_graph_does_not_pass(ranks: Path, damage: Callable[[onnx.ModelProto], None]) -> None:
    signature = open_bundle(ranks).manifest.signature
    graph = onnx.load(ranks / "fp32.onnx")
    verified(graph, signature, whole)
    before = graph.SerializeToString()
    damage(graph)
    assert graph.SerializeToString() != before
    with pytest.raises(VerificationError):
        verified(graph, signature, whole)


def test_coral_is_calibrated_within_a_budget_in_years_and_compared(
    coral: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, random = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    lines = ["file,age"]
    with load(coral) as model:
        for number in range(COUNT):
            small = random.integers(0, 256, (6, 6), dtype=np.uint8) // (1 + number % 7)
            path = photos / f"{number:03}.png"
            Image.fromarray(small).resize((120, 120), Image.Resampling.BICUBIC).save(path)
            lines.append(f"{path.name},{float(model.predict(path)['age'].value) + 2}")
    (photos / "labels.csv").write_text("\n".join(lines))
    target = tmp_path / "int8.mtl"
    data = ["--calibration-data", str(photos), "--labels", str(photos / "labels.csv")]
    assert calibrate([str(coral), *data, "--max-drop", "age=3", "-o", str(target), "--threads", "1", "-q"]) == 0
    matrix = AccuracyMatrix.from_dict(open_bundle(target).manifest.accuracy)
    cell = matrix.cell("age", "fp32")
    assert (cell.metrics, cell.unit) == ({"mae": pytest.approx(2)}, "years")
    assert matrix.cell("age", "int8-cpu").drop is not None
    capsys.readouterr()
    assert calibrate(["compare", str(coral), str(target), *data, "--precision", "fp32,int8-cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"][0]
    assert (found["metric"], found["unit"], found["first"]["mae"]) == ("mae", "years", pytest.approx(2))
    image = str(photos / "000.png")
    with load(target) as model:
        said = model.predict(image)["age"]
    assert infer([str(target), image, "--show", str(tmp_path / "shown.png")]) == 0
    assert str(said) in capsys.readouterr().out
    assert 20 <= float(said.value) <= 30


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            'name = "corn"\nvalues = "0:5:1"',
            "has 5 values but the network returns 5 values per sample: 5 thresholds tell 6 ranks",
        ),
        ('name = "corn"\nactivation = "sigmoid"', "activation sigmoid is declared"),
        ('name = "corn"\ndecoding = "niu"', "decoding"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(
    fields: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(tmp_path, f'[[task]]\nkind = "ordinal"\n{fields}\n') == 2
    assert message in capsys.readouterr().err
