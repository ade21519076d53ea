"""Networks that arrive as graphs, from the command line to predictions: ONNX files and TorchScript, as other people save them."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import given_graphs
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from mtl_deploy.export.cli import main
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle

Export = Callable[..., Path]
SIZE = given_graphs.SIZE
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
PIXELS = np.random.default_rng(3).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
SMALL = ("--image-size", str(SIZE), "--engine", "none")


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Return ``(N, 3, H, W) float32``."""
    return ((pixels / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)


def rows(model: onnx.ModelProto | bytes, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run the given file itself, image by image."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    image = session.get_inputs()[0].name
    parts = [session.run(names, {image: np.ascontiguousarray(images[k : k + 1])}) for k in range(len(images))]
    return {name: np.concatenate([part[place] for part in parts]) for place, name in enumerate(names)}


def written(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a graph."""
    file = folder / "given.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def test_a_keras_graph_becomes_a_bundle_with_its_softmax_found(tmp_path: Path, export_file: Export) -> None:
    model = given_graphs.keras()
    tasks = tmp_path / "tasks.toml"
    tasks.write_text(
        '[[task]]\nname = "race"\nkind = "multiclass"\noutput = "StatefulPartitionedCall:1"\n'
        '[[task]]\nname = "age"\nkind = "regression"\noutput = "StatefulPartitionedCall:0"\n'
    )
    bundle = export_file(written(model, tmp_path), "--tasks", str(tasks), *SMALL)
    expected = rows(model, normalised(PIXELS).transpose(0, 2, 3, 1))
    manifest = open_bundle(bundle).manifest
    assert [task.applied for task in manifest.tasks] == ["softmax", "none"]
    assert manifest.provenance["compared_with"] == "the given graph"
    for precision, tolerance in (("fp32", 1e-5), ("fp16", 1e-2)):
        with load(bundle, precision=precision) as network:
            found = network(PIXELS)
        scale = float(np.abs(expected["StatefulPartitionedCall:0"]).max())
        np.testing.assert_allclose(found["race"], expected["StatefulPartitionedCall:1"], atol=tolerance)
        np.testing.assert_allclose(found["age"], expected["StatefulPartitionedCall:0"], atol=tolerance * scale)


def test_pixels_reach_a_graph_that_normalises_them_itself(
    tmp_path: Path, export_file: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    model = given_graphs.pixels()
    file = written(model, tmp_path)
    tasks = ("--task", "age=regression", "--task", "race=multiclass;activation=none")
    bundle = export_file(file, *tasks, *SMALL, "--precision", "fp32")
    expected = rows(model, PIXELS)
    with load(bundle) as network:
        found = network(PIXELS)
    np.testing.assert_allclose(found["age"], expected["age"], atol=1e-4)
    race = torch.from_numpy(expected["race"]).softmax(1).numpy()
    np.testing.assert_allclose(found["race"], race, atol=1e-4)
    assert main([str(file), *tasks, "--mean", "0.5,0.5,0.5", "--output", str(tmp_path / "other.mtl")]) == 2
    assert "--mean, --std and --transform do not apply" in capsys.readouterr().err


def test_classes_beside_the_logits_and_outputs_without_a_task_are_left_out_in_words(
    tmp_path: Path, export_file: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    model = given_graphs.leftovers()
    bundle = export_file(written(model, tmp_path), "--task", "race=multiclass", *SMALL, "--precision", "fp32")
    printed = capsys.readouterr().out
    assert "class (int64)" in printed
    assert "left out" in printed
    assert "against the given graph" in printed
    assert [value.name for value in onnx.load(bundle / "fp32.onnx").graph.output] == ["race"]
    notes = json.loads((bundle / "manifest.json").read_text())["provenance"]["notes"]
    assert len([note for note in notes if "class (int64)" in note]) == 1
    assert len(set(notes)) == len(notes)


class Digits(nn.Module):
    """Which digit, and whether it is even: two heads on small convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, stride=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
        )
        self.digit, self.even = nn.Linear(128, 10), nn.Linear(128, 1)

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        features = self.body(images)
        return [self.digit(features), self.even(features)], features


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A trained network, images ``(N, 32, 32, 3) uint8`` that it has not seen, and their digits."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.kron(found.images, np.ones((4, 4)))[..., None].repeat(3, axis=-1)
    pixels = (pixels * 255 / 16).astype(np.uint8)
    torch.manual_seed(0)
    network = Digits()
    images, labels = torch.from_numpy(normalised(pixels)), torch.from_numpy(found.target)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(12):
        for place in torch.randperm(1200).split(64):
            digit, even = network(images[place])[0]
            loss = nn.functional.cross_entropy(digit, labels[place])
            loss = loss + nn.functional.binary_cross_entropy_with_logits(even[:, 0], (labels[place] % 2 == 0).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval(), pixels[1200:], found.target[1200:]


TASKS = '[[task]]\nname = "digit"\nkind = "multiclass"\noutput = {}\n[[task]]\nname = "even"\nkind = "binary"\noutput = {}\n'


def exported(network: nn.Module, *, dynamo: bool, batch: int | None = None, opset: int = 17) -> bytes:
    """Return a file as PyTorch's exporters write it."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network(images)[0])

    images = torch.zeros(batch or 2, 3, SIZE, SIZE)
    file: Any = io.BytesIO()
    free: dict[str, Any] = {}
    if batch is None:
        axes = {"dynamic_axes": {"images": {0: "batch_size"}}}
        free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else axes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Heads().eval(), (images,), None if dynamo else file, dynamo=dynamo, input_names=["images"],
            output_names=["digit", "even"], opset_version=opset, verbose=False, **free,
        )  # fmt: skip
    if program is not None:
        program.save(file)
    content: bytes = file.getvalue()
    return content


@pytest.mark.parametrize(
    ("dynamo", "batch", "opset"), [(False, 1, 11), (True, 1, 18), (True, None, 20)], ids=["legacy", "fixed", "free"]
)
def test_what_pytorch_exports_answers_as_the_file_does(
    dynamo: bool, batch: int | None, opset: int, digits: Any, tmp_path: Path, export_file: Export
) -> None:
    network, pixels, _ = digits
    content = exported(network, dynamo=dynamo, batch=batch, opset=opset)
    file = tmp_path / "given.onnx"
    file.write_bytes(content)
    tasks = tmp_path / "tasks.toml"
    tasks.write_text(TASKS.format('"digit"', '"even"'))
    bundle = export_file(file, "--tasks", str(tasks), *SMALL, "--precision", "fp32")
    expected = rows(content, normalised(pixels[:32]))
    with load(bundle) as model:
        found = model(pixels[:32])
    np.testing.assert_allclose(found["digit"], torch.from_numpy(expected["digit"]).softmax(1).numpy(), atol=1e-5)
    np.testing.assert_allclose(found["even"], torch.from_numpy(expected["even"]).sigmoid().numpy(), atol=1e-5)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {artifact["batch_max"] for artifact in manifest["artifacts"]} == {None}
    assert all(row["floor"] > 0 for row in manifest["verification"])  # float64 was the truth


def test_a_given_graph_is_quantized(digits: Any, tmp_path: Path, export_file: Export) -> None:
    network, pixels, labels = digits
    file = tmp_path / "given.onnx"
    file.write_bytes(exported(network, dynamo=True, batch=1, opset=18))
    np.save(tmp_path / "images.npy", pixels[:400])
    tasks = tmp_path / "tasks.toml"
    tasks.write_text(TASKS.format(0, 1))
    precisions = ("--precision", "fp32,int8", "--calibration-data", str(tmp_path / "images.npy"))
    bundle = export_file(file, "--tasks", str(tasks), *SMALL, *precisions)
    with load(bundle, precision="int8") as model:
        found = model(pixels[400:])
    right = float((np.argmax(found["digit"], axis=1) == labels[400:]).mean())
    with torch.inference_mode():
        own = network(torch.from_numpy(normalised(pixels[400:])))[0][0].argmax(1).numpy()
    assert (own == labels[400:]).mean() > 0.85
    assert right > (own == labels[400:]).mean() - 0.03


@pytest.mark.parametrize("form", ["traced", "scripted"])
def test_torchscript_answers_as_the_script_does(form: str, digits: Any, tmp_path: Path, export_file: Export) -> None:
    network, pixels, _ = digits
    file = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.zeros(1, 3, SIZE, SIZE)
        script: Any = torch.jit.trace(network, images) if form == "traced" else torch.jit.script(network)
        script.save(str(file))
    tasks = tmp_path / "tasks.toml"
    tasks.write_text(TASKS.format('"0.0"', '"0.1"'))
    bundle = export_file(file, "--trust-pickle", "--tasks", str(tasks), *SMALL, "--precision", "fp32")
    with torch.inference_mode():
        digit, even = script(torch.from_numpy(normalised(pixels[:32])))[0]
    with load(bundle) as model:
        found = model(pixels[:32])
    np.testing.assert_allclose(found["digit"], digit.softmax(1).numpy(), atol=1e-5)
    np.testing.assert_allclose(found["even"], even.sigmoid().numpy(), atol=1e-5)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {artifact["batch_max"] for artifact in manifest["artifacts"]} == {None}


def test_weights_in_a_file_beside_the_graph(tmp_path: Path, export_file: Export) -> None:
    file = tmp_path / "given.onnx"
    onnx.save(given_graphs.graph(), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    bundle = export_file(file, "--task", "age=regression", "--task", "race=multiclass", *SMALL, "--precision", "fp32")
    assert any(
        "weights.bin" in note for note in json.loads((bundle / "manifest.json").read_text())["provenance"]["notes"]
    )
    (tmp_path / "weights.bin").unlink()
    with load(bundle) as model:
        found = model(PIXELS)
    expected = rows(given_graphs.graph(), normalised(PIXELS))
    np.testing.assert_allclose(found["age"], expected["age"], atol=1e-4)


def test_a_batch_that_cannot_be_freed_stays_and_is_said(
    tmp_path: Path, export_file: Export, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export_file(
        written(given_graphs.mixing(), tmp_path), "--task", "age=regression", "--task", "race=multiclass", *SMALL,
        "--precision", "fp32",
    )  # fmt: skip
    assert "note: the given graph fixes its batch at 1, and cannot be freed" in capsys.readouterr().out
    expected = rows(given_graphs.mixing(), normalised(PIXELS))["age"]
    with load(bundle) as model:
        for place in range(len(PIXELS)):
            found = model(PIXELS[place : place + 1])["age"]
            np.testing.assert_allclose(found, expected[place : place + 1], atol=1e-4)
