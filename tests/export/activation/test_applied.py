"""Outputs that are already probabilities: found, checked, and never decoded twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import activation_networks as made
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch.nn import functional

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.activation.applied import describe
from mtl_deploy.export.cli import main
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from tests.export.activation.heads import PIXELS, WARNED, says

Export = Callable[..., Path]
SIZE = ("--image-size", "32x32", "--no-separate")


def asked(*tasks: str) -> list[str]:
    return [word for task in tasks for word in ("--task", task)]


def pickled(network: torch.nn.Module, folder: Path) -> Path:
    path = folder / "network.pt"
    torch.save(network.eval(), path)
    return path


def program(network: torch.nn.Module, folder: Path) -> Path:
    path = folder / "network.pt2"
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(2, 3, 32, 32),), dynamic_shapes=batch), path)
    return path


@pytest.mark.parametrize(
    ("write", "outputs"),
    [(pickled, "decoded"), (program, "decoded"), (pickled, "logits")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_bundle_says_what_the_network_said(
    write: Callable[..., Path], outputs: str, tmp_path: Path, export_file: Export
) -> None:
    network = made.Probabilities()
    trust = ["--trust-pickle"] if write is pickled else []
    path = export_file(write(network, tmp_path), *trust, *SIZE, *asked(*made.TASKS), "--outputs", outputs)

    raw = says(network)
    with load(path, precision="fp32") as model:
        predictions = model.predict(list(PIXELS))
        graph = model(PIXELS)
    for name, wanted in made.probabilities(raw).items():
        found = np.stack([prediction[name].probabilities for prediction in predictions])
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-6, err_msg=name)
    values = [prediction["quality"].value for prediction in predictions]
    np.testing.assert_allclose(values, 1 + 100 * raw["quality"][:, 0].numpy(), rtol=1e-5)
    if outputs == "logits":
        for name, own in raw.items():
            np.testing.assert_allclose(graph[name], own.numpy(), atol=2e-5, err_msg=name)
    manifest = open_bundle(path).manifest
    assert {task.name: task.activation for task in manifest.tasks} == made.ACTIVATIONS | {"quality": None}
    notes = " ".join(manifest.provenance["notes"])
    assert "'gender': the network itself applies sigmoid (its graph ends in Sigmoid)" in notes
    assert "'plain'" not in notes


def test_a_sigmoid_head_can_say_either_class(tmp_path: Path, export_file: Export) -> None:
    network = made.Probabilities().eval()
    with torch.inference_mode():
        network.heads["gender"].bias -= network.heads["gender"](
            network.backbone(network_input(PIXELS, Preprocessing(32, 32)))
        ).mean()
    path = export_file(pickled(network, tmp_path), "--trust-pickle", *SIZE, *asked(*made.TASKS))
    with load(path) as model:
        labels = [prediction["gender"].label for prediction in model.predict(list(PIXELS))]
    wanted = ["female" if value >= 0.5 else "male" for value in says(network)["gender"][:, 0]]
    assert labels == wanted
    assert set(labels) == {"male", "female"}


def test_a_head_that_is_all_but_certain_is_verified_and_seen(tmp_path: Path, export_file: Export) -> None:
    network = made.Probabilities().eval()
    images = torch.from_numpy(natural_images(32, 32, 32, seed=0).astype(np.float32)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        head, features = network.heads["gender"], network.backbone((images - 0.45) / 0.225)
        head.weight *= 15 / head(features).std()  # runtimes answer 0 from -18 on, PyTorch does not
        head.bias -= head(features).mean() + 10
        logits = head(features)
    assert (logits < -20).any()
    assert (logits > 5).any()
    path = export_file(pickled(network, tmp_path), "--trust-pickle", *SIZE, *asked(*made.TASKS))
    notes = open_bundle(path).manifest.provenance["notes"]
    assert not [
        note for note in notes if note.startswith("verification cannot see") or "'gender' does not tell" in note
    ]


def test_a_head_that_is_certain_of_every_image_is_named(tmp_path: Path, export_file: Export) -> None:
    network = made.Probabilities().eval()
    with torch.inference_mode():
        network.heads["gender"].bias -= 60
    path = export_file(pickled(network, tmp_path), "--trust-pickle", *SIZE, *asked(*made.TASKS))
    notes = open_bundle(path).manifest.provenance["notes"]
    assert [note.split(" as far")[0] for note in notes if "as far as a sigmoid" in note] == [
        "task 'gender' does not distinguish the images"
    ]


def test_a_detectors_face_head_keeps_its_softmax(tmp_path: Path, export_file: Export) -> None:
    network = made.ONet()
    tasks = asked("box=regression", "landmarks=regression", "face=binary:no,face")
    path = export_file(
        pickled(network, tmp_path), "--trust-pickle", "--image-size", "48x48", "--mean", "0.5,0.5,0.5",
        *("--std", "0.5,0.5,0.5"), *tasks,
    )  # fmt: skip
    pixels = np.random.default_rng(5).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = network((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    with load(path, precision="fp32") as model, load(path / "separate" / "face.onnx") as separate:
        for each in (model, separate):
            faces = [prediction["face"].probabilities for prediction in each.predict(list(pixels))]
            np.testing.assert_allclose(np.stack(faces), wanted[2].numpy(), atol=1e-6)
        for name, values in (("box", wanted[0]), ("landmarks", wanted[1])):
            np.testing.assert_allclose(model(pixels)[name], values.numpy(), atol=1e-5)


@pytest.mark.parametrize("outputs", ["decoded", "logits"])
def test_maps_of_probabilities_are_interpolated_and_not_decoded_again(
    outputs: str, tmp_path: Path, export_file: Export
) -> None:
    network = made.Maps()
    tasks = asked("large=segmentation", "small=segmentation;argmax=false", "logs=segmentation")
    path = export_file(pickled(network, tmp_path), "--trust-pickle", *SIZE, *tasks, "--outputs", outputs)
    raw = says(network)
    with load(path, precision="fp32") as model:
        graph, predictions = model(PIXELS), model.predict(list(PIXELS))
    scaled = {
        name: functional.interpolate(raw[name], size=(32, 32), mode="bilinear", align_corners=False) for name in raw
    }
    assert [task.activation for task in open_bundle(path).manifest.tasks] == ["softmax", "softmax", "log_softmax"]
    for name, maps in scaled.items():
        classes = np.stack([prediction[name].value for prediction in predictions])
        assert np.mean(classes == maps.argmax(1).numpy()) > 0.999
    small = raw["small"] if outputs == "logits" else scaled["small"]
    np.testing.assert_allclose(graph["small"], small.numpy(), atol=1e-6)
    np.testing.assert_allclose(graph["small"].sum(axis=1), 1, atol=1e-5)


def test_the_command_warns_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = made.Applied({"clamp": WARNED["clamp"][::2]})
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    arguments = [str(tmp_path / "weights.pt"), "--model", "activation_networks:clamped", *SIZE, "--engine", "none"]
    arguments += ["-o", str(tmp_path), "--precision", "fp32", "--task", "last=regression;output=1"]
    assert main([*arguments, "--task", "gender=binary;output=0"]) == 0
    assert "warning: task 'gender': the network's values look like probabilities" in capsys.readouterr().err
    notes = open_bundle(tmp_path / "weights.mtl").manifest.provenance["notes"]
    assert any("the network's values look like probabilities" in note for note in notes)
    assert main([*arguments, "-f", "--task", "gender=binary;output=0;activation=softmax"]) == 2
    assert "softmax of one value is always the same" in capsys.readouterr().err


def test_a_networks_own_activation_is_typed_and_quantized_as_ours(tmp_path: Path, pictures: Path) -> None:
    """The same network with its activation inside and with ours behind it: the same graphs, the same answers, the same accuracy."""
    found = {}
    for factory, outputs in (("own", "decoded"), ("ours", "decoded"), ("own", "logits")):
        checkpoint, target = tmp_path / f"{factory}.pt", tmp_path / f"{factory}-{outputs}.mtl"
        torch.save(getattr(made, factory)().state_dict(), checkpoint)
        options = [
            *("--model", f"activation_networks:{factory}", "--image-size", "32x32", "--no-separate", "--engine", "none")
        ]
        options += [*("--calibration-data", str(pictures), "--calibration-method", "minmax", "--threads", "1", "-q")]
        options += [*asked("gender=binary:0,1", "race=multiclass:a,b,c,d", "age=regression"), "--outputs", outputs]
        assert main([str(checkpoint), *options, "-o", str(target)]) == 0
        found[factory, outputs] = open_bundle(target)
    own, ours, raw = found.values()
    for path in ("fp32.onnx", "fp16.onnx", "int8.onnx", "int8-cpu.onnx"):
        one, other = (onnx.load(bundle.path / path) for bundle in (own, ours))
        assert Counter(node.op_type for node in one.graph.node) == Counter(node.op_type for node in other.graph.node)
        halves = [
            sorted(w.name for w in model.graph.initializer if w.data_type == 10 and w.dims) for model in (one, other)
        ]
        assert len(halves[0]) == len(halves[1])
        with load(own.path / path) as first, load(ours.path / path) as second, load(raw.path / path) as third:
            for name, values in first(PIXELS).items():
                np.testing.assert_allclose(values, second(PIXELS)[name], atol=1e-6, err_msg=f"{path}, {name}")
                np.testing.assert_allclose(values, third(PIXELS)[name], atol=1e-6, err_msg=f"{path}, {name}")
    matrices = [AccuracyMatrix.from_dict(bundle.manifest.accuracy) for bundle in (own, ours, raw)]
    assert matrices[0].labelled
    for cell in matrices[0].cells:
        for other in matrices[1:]:
            assert other.cell(cell.task, cell.variant).metrics == pytest.approx(cell.metrics)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise of several colours, called as UTKFace's files are, so that it has labels."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(4)
    for position in range(40):
        pixels = rng.integers(0, 256, (32, 32, 3)) * rng.uniform(0.1, 1, 3)
        name = f"{20 + position}_{position % 2}_{position % 4}_20170109142408{position:03}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return folder


def test_what_was_found_is_said_in_a_few_words() -> None:
    tasks = (Task("a", "binary", activation="sigmoid"), Task("b", "multiclass", activation="none"), Task("c", "depth"))
    assert describe(tasks, "decoded") == "already probabilities or their logarithms: a (sigmoid)"
    assert describe(tasks, "logits").endswith("a (sigmoid), and --outputs logits gives them as they are")
    assert describe(tasks[1:], "logits") == "classes are logits"
    assert describe(tasks[2:], "logits") == ""
