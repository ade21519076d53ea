"""Forty attributes as one task, from the file that holds the network to labels, accuracy and a benchmark; and wrong graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import wild
from onnx import numpy_helper
from PIL import Image
from sklearn.metrics import average_precision_score

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.errors import TaskError, VerificationError
from tests.export.kinds.verifying import constants, node_called, verified

COUNT = 160


def exported(folder: Path, name: str = "celeba", *more: str, tasks: str = "") -> int:
    (folder / "tasks.toml").write_text(tasks or wild.TASKS[name])
    model = ["--model", f"wild:{name}", "--tasks", str(folder / "tasks.toml"), "--image-size", "64x64"]
    quiet = ["--engine", "none", "--threads", "1", "-q", "-o", str(folder / "x.mtl")]
    return export([str(wild.checkpoint(name, folder)), *model, *quiet, *more])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    assert exported(folder) == 0
    return folder / "x.mtl"


@pytest.fixture(scope="module")
def photos(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and labels as CelebA writes them: what the network says, with every tenth answer turned round."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(COUNT):
        small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
    names = open_bundle(bundle).manifest.signature.task("attributes").labels
    with load(bundle) as model:
        shares = np.array([model(folder / f"{number:03}.png")["attributes"][0] for number in range(COUNT)])
    held = (shares >= np.median(shares, axis=0)) ^ (random.random(shares.shape) < 0.1)
    lines = [f"{number:03}.png,{','.join('1' if one else '-1' for one in row)}" for number, row in enumerate(held)]
    (folder / "labels.csv").write_text("\n".join([f"file,{','.join(names)}", *lines]))
    return folder


def test_a_list_of_forty_outputs_is_one_task_in_every_graph(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    task = manifest.signature.task("attributes")
    assert (task.size, len(task.outputs), task.outputs[31]) == (40, 40, "attributes.31")
    rows = {row["artifact"]: row for row in manifest.verification if row["task"] == "attributes"}
    assert {"fp32.onnx", "fp16.onnx", "separate/attributes.onnx", "separate/attributes.fp16.onnx"} <= set(rows)
    assert all(row["logit_error"] is not None and row["agreement"] == 1.0 for row in rows.values())
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        result = wild.trained("celeba")(network_input(pixels, manifest.signature.preprocessing))
    wanted = torch.cat(result["attributes"], dim=1).sigmoid().numpy()
    for path in ("fp32.onnx", "separate/attributes.onnx", "fp16.onnx"):
        with load(bundle / path) as model:
            np.testing.assert_allclose(model(pixels)["attributes"], wanted, atol=1e-5 if "16" not in path else 2e-3)
    graph = onnx.load(bundle / "fp16.onnx").graph
    typed = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    assert typed["attributes"] == onnx.TensorProto.FLOAT
    sigmoid = next(node for node in graph.node if node.name == "decode/attributes/sigmoid")
    assert typed.get(sigmoid.input[0], onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT


def test_logits_are_decoded_by_the_runtime_to_the_same(bundle: Path, photos: Path, tmp_path: Path) -> None:
    assert exported(tmp_path, "celeba", "--outputs", "logits", "--precision", "fp32", "--no-separate") == 0
    with load(tmp_path / "x.mtl") as plain, load(bundle / "fp32.onnx") as decoded:
        one, other = (model.predict(photos / "000.png")["attributes"] for model in (plain, decoded))
    assert one == other
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_a_graph_with_two_labels_swapped_does_not_pass(bundle: Path) -> None:
    signature = open_bundle(bundle).manifest.signature.subset(["attributes"])
    network = wild.trained("celeba")

    def forward(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"attributes": torch.cat(network(tensor)["attributes"], dim=1)}

    graph = onnx.load(bundle / "separate" / "attributes.onnx")
    verified(graph, signature, forward)
    join = node_called(graph, "decode/attributes/side_by_side")
    join.input[4], join.input[5] = join.input[5], join.input[4]
    with pytest.raises(VerificationError, match="attributes"):
        verified(graph, signature, forward)


def test_calibrated_with_celebas_own_columns_and_compared(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "int8.mtl"
    data = ["--calibration-data", str(photos), "--labels", str(photos / "labels.csv")]
    assert (
        calibrate([str(bundle), *data, "--max-drop", "attributes=10%", "-o", str(target), "--threads", "1", "-q"]) == 0
    )
    matrix = AccuracyMatrix.from_dict(open_bundle(target).manifest.accuracy)
    cell = matrix.cell("attributes", "fp32")
    assert set(cell.metrics) == {"mean_accuracy", "mean_ap"}
    assert cell.metrics["mean_ap"] > 0.7
    assert matrix.cell("attributes", "int8-cpu").drop_high is not None
    table = matrix.text()
    assert "mean accuracy, %" in table
    assert "mAP, %" in table
    capsys.readouterr()
    assert calibrate(["compare", str(bundle), str(target), *data, "--precision", "fp32,int8-cpu", "--json"]) == 0
    rows = {row["task"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    found = rows["attributes"]
    assert (found["metric"], found["images"], found["unit"]) == ("mean_accuracy", COUNT, None)
    with load(bundle / "fp32.onnx") as model:
        shares = np.array([model(photos / f"{number:03}.png")["attributes"][0] for number in range(COUNT)])
    truth = np.loadtxt(photos / "labels.csv", delimiter=",", skiprows=1, usecols=range(1, 41)) > 0
    assert found["first"]["mean_accuracy"] == pytest.approx(((shares >= 0.5) == truth).mean())
    assert found["first"]["mean_ap"] == pytest.approx(average_precision_score(truth, shares, average="macro"), abs=1e-4)


def test_inferred_and_drawn(bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, shown = str(photos / "000.png"), tmp_path / "shown.png"
    with load(bundle) as model:
        found = model.predict(image)["attributes"]
    assert infer([str(bundle), image, "--show", str(shown)]) == 0
    assert str(found) in capsys.readouterr().out
    assert Image.open(shown).size[1] > 400, "the labels take no lines below the image"
    assert infer([str(bundle), image, "--json"]) == 0
    said: Any = json.loads(capsys.readouterr().out)
    assert json.dumps(found.to_dict()) in json.dumps(said)


@pytest.mark.extended
def test_benchmarked_once_the_outputs_agree(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--starts", "0", "--no-where", "--duration", "0.1", "--threads", "1", "--quiet", "--isolation", "none"]
    assert bench([str(bundle), *few, "--no-memory", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["contestants"]) >= {"shared", "separate"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('labels = ["a", "b"]\noutput = "attributes"', "has 2 labels but the network returns 40 values"),
        ('output = ["attributes.0", "attributes.0"]', "names one twice"),
        ('output = ["attributes", "nothing"]', "no output 'nothing'"),
        ('output = "landmarks"\nactivation = "softmax"', "declare it multiclass"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(
    fields: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = f'[[task]]\nname = "a"\nkind = "multilabel"\n{fields}\n'
    assert exported(tmp_path, "celeba", tasks=tasks) == 2
    assert message in capsys.readouterr().err


class Sigmoids(torch.nn.Module):
    """One tensor, whose sigmoids the network applies itself, and squeezed single outputs."""

    def __init__(self, *, mixed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.mixed = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.Linear(8, 3), mixed

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.head(self.body(image).relu().mean((2, 3)))
        shares = found.sigmoid()
        last = found[:, 2] if self.mixed else shares[:, 2]
        return {"all": shares, "one": shares[:, 0], "two": shares[:, 1:2], "three": last}


def mixed() -> Sigmoids:
    return Sigmoids(mixed=True)


@pytest.mark.parametrize("output", ['"all"', '["one", "two", "three"]'])
def test_sigmoids_of_the_network_itself_are_found_and_not_applied_again(output: str, tmp_path: Path) -> None:
    torch.save(Sigmoids().state_dict(), tmp_path / "x.pt")
    (tmp_path / "tasks.toml").write_text(f'[[task]]\nname = "a"\nkind = "multilabel"\noutput = {output}\n')
    model = ["--model", "tests.export.kinds.test_multilabel:Sigmoids", "--tasks", str(tmp_path / "tasks.toml")]
    quiet = ["--image-size", "16x16", "--engine", "none", "--no-separate", "--threads", "1", "-q"]
    assert export([str(tmp_path / "x.pt"), *model, *quiet, "-o", str(tmp_path / "x.mtl")]) == 0
    manifest = open_bundle(tmp_path / "x.mtl").manifest
    task = manifest.signature.task("a")
    assert (task.activation, task.size) == ("sigmoid", 3)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = Sigmoids()(network_input(pixels, manifest.signature.preprocessing))["all"].numpy()
    with load(tmp_path / "x.mtl" / "fp32.onnx") as one:
        np.testing.assert_allclose(one(pixels)["a"], wanted, atol=1e-6)


def test_labels_with_different_activations_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(Sigmoids().state_dict(), tmp_path / "x.pt")
    (tmp_path / "tasks.toml").write_text('[[task]]\nname = "a"\nkind = "multilabel"\noutput = ["two", "three"]\n')
    model = ["--model", "tests.export.kinds.test_multilabel:mixed", "--tasks", str(tmp_path / "tasks.toml")]
    assert (
        export(
            [
                str(tmp_path / "x.pt"),
                *model,
                "--image-size",
                "16x16",
                "--engine",
                "none",
                "-q",
                "-o",
                str(tmp_path / "x.mtl"),
            ]
        )
        == 2
    )
    assert "different activations" in capsys.readouterr().err


class Pairs(torch.nn.Module):
    """Two values per label: a list of log-softmaxes, as networks for CelebA of multi-task learning have it, and other forms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.body = torch.nn.Conv2d(3, 16, 5, stride=4)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(16, 2) for _ in range(3))
        for head in self.heads:
            torch.nn.init.normal_(head.weight, std=4)

    def forward(self, image: torch.Tensor) -> dict[str, object]:
        found = self.body(image).relu().mean((2, 3))
        logits = torch.stack([head(found) for head in self.heads], dim=1)
        return {
            "logs": [head(found).log_softmax(1) for head in self.heads],
            "logits": logits.flatten(1),
            "shares": logits.softmax(-1),
            "across": logits.transpose(1, 2),
        }


PAIRS = "".join(
    f'[[task]]\nname = "{name}"\nkind = "multilabel"\npairs = true\nlabels = ["a", "b", "c"]\n'
    for name in ("logs", "logits", "shares")
)


def exported_pairs(folder: Path, tasks: str, *more: str) -> int:
    torch.save(Pairs().state_dict(), folder / "x.pt")
    (folder / "tasks.toml").write_text(tasks)
    model = ["--model", "tests.export.kinds.test_multilabel:Pairs", "--tasks", str(folder / "tasks.toml")]
    quiet = ["--image-size", "64x64", "--engine", "none", "--threads", "1", "-q", "-o", str(folder / "x.mtl")]
    return export([str(folder / "x.pt"), *model, *quiet, *more])


def test_two_values_per_label_in_each_form(tmp_path: Path) -> None:
    assert exported_pairs(tmp_path, PAIRS) == 0
    manifest = open_bundle(tmp_path / "x.mtl").manifest
    assert [task.activation for task in manifest.tasks] == ["log_softmax", "none", "softmax"]
    rows = [row for row in manifest.verification if row["artifact"] in ("fp32.onnx", "fp16.onnx")]
    assert len(rows) == 6
    assert all(row["logit_error"] is not None and row["agreement"] == 1.0 for row in rows)
    pixels = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = Pairs()(network_input(pixels, manifest.signature.preprocessing))["shares"][..., 1].numpy()
    for path, allowed in (("fp32.onnx", 1e-5), ("separate/logs.onnx", 1e-5), ("fp16.onnx", 0.01)):
        with load(tmp_path / "x.mtl" / path) as model:
            for found in model(pixels).values():
                np.testing.assert_allclose(found, wanted, atol=allowed)
    signature = manifest.signature
    graph = onnx.load(tmp_path / "x.mtl" / "fp32.onnx")

    def forward(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        found = Pairs()(tensor)
        return {**found, "logs": torch.cat(found["logs"], dim=1), "shares": found["shares"].flatten(1)}

    verified(graph, signature, forward)
    second = constants(graph)["decode.shares.second"]
    second.CopyFrom(numpy_helper.from_array(np.array(0, np.int64), second.name))
    with pytest.raises(VerificationError, match="shares"):
        verified(graph, signature, forward)


def test_pairs_that_do_not_lie_side_by_side_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = '[[task]]\nname = "across"\nkind = "multilabel"\npairs = true\n'
    assert exported_pairs(tmp_path, tasks) == 2
    assert "the two values of a label lie side by side" in capsys.readouterr().err
    assert exported_pairs(tmp_path, PAIRS.replace("pairs = true\n", "")) == 2
    assert "say pairs = true" in capsys.readouterr().err


def test_labels_of_a_map_are_refused() -> None:
    from mtl_deploy.export.forward.selected import as_task
    from mtl_deploy.runtime.bundle.tasks import Task

    with pytest.raises(TaskError, match="a map of 7x7"):
        as_task(Task("a", "multilabel"), torch.zeros(2, 3, 7, 7))
