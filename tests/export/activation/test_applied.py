"""Outputs that are already probabilities: found, checked, and never decoded twice."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import activation_networks as made
import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch.nn import functional

from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.activation.applied import describe, settle_activations
from mtl_deploy.export.cli import main
from mtl_deploy.export.graph.passes import clean, merge_copies
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ActivationWarning, TaskError

Export = Callable[..., Path]
PIXELS = np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
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


def says(network: torch.nn.Module, pixels: np.ndarray = PIXELS) -> Any:
    with torch.inference_mode():
        return network.eval()(network_input(pixels, Preprocessing(*pixels.shape[1:3])))


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


FORMS: dict[str, tuple[made.Form, str, int]] = {
    "softmax": (lambda v: v.softmax(1), "softmax", 4),
    "log_softmax": (lambda v: v.log_softmax(1), "log_softmax", 4),
    "the logarithm of a softmax": (lambda v: torch.log(v.softmax(1) + 1e-8), "log_softmax", 4),
    "x - logsumexp(x)": (lambda v: v - v.logsumexp(1, keepdim=True), "log_softmax", 4),
    "exp / sum": (lambda v: v.exp() / v.exp().sum(1, keepdim=True), "softmax", 4),
    "shifted exp / sum": (
        lambda v: (
            (v - v.amax(1, keepdim=True)).exp() / ((v - v.amax(1, keepdim=True)).exp().sum(1, keepdim=True) + 1e-12)
        ),
        "softmax",
        4,
    ),
    "softplus, normalised": (lambda v: functional.normalize(functional.softplus(v), p=1, dim=1), "softmax", 4),
    "exp of log_softmax": (lambda v: v.log_softmax(1).exp(), "softmax", 4),
    "softmin": (lambda v: functional.softmin(v, 1), "softmax", 4),
    "a clipped softmax": (lambda v: v.softmax(1).clamp(1e-7, 1 - 1e-7), "softmax", 4),
    "a softmax in double": (lambda v: v.double().softmax(1).float(), "softmax", 4),
    "a mean of softmaxes": (lambda v: v.reshape(-1, 4, 2).softmax(1).mean(2), "softmax", 8),
    "1x1 maps, flattened": (lambda v: v[:, :, None, None].softmax(1).flatten(1), "softmax", 4),
    "channels last": (lambda v: v[:, :, None].permute(0, 2, 1).softmax(2).squeeze(1), "softmax", 4),
    "p and 1 - p": (lambda v: torch.cat([1 - v.sigmoid(), v.sigmoid()], 1), "softmax", 1),
    "sigmoid": (torch.sigmoid, "sigmoid", 1),
    "sigmoid without a channel": (lambda v: v.sigmoid()[:, 0], "sigmoid", 1),
    "1 / (1 + exp(-x))": (lambda v: 1 / (1 + torch.exp(-v)), "sigmoid", 1),
    "exp(x) / (1 + exp(x))": (lambda v: v.exp() / (1 + v.exp()), "sigmoid", 1),
    "(1 + tanh(x)) / 2": (lambda v: (torch.tanh(v) + 1) / 2, "sigmoid", 1),
    "one class of a softmax": (lambda v: v.softmax(1)[:, 1], "sigmoid", 4),
    "one class of a softmax, kept apart": (lambda v: v.softmax(1)[:, 1:2], "sigmoid", 4),
    "one class, by split": (lambda v: v.softmax(1).split(1, 1)[2].squeeze(1), "sigmoid", 4),
    "classes without the background": (lambda v: v.softmax(1)[:, 1:], "sigmoid", 4),
    "sigmoids side by side": (lambda v: torch.cat([v[:, :1].sigmoid(), v[:, 1:].sigmoid()], 1), "sigmoid", 4),
    "a part of what was joined": (lambda v: torch.cat([v[:, :2], v[:, 2:].softmax(1)], 1)[:, 2:], "softmax", 5),
    "a softmax and then a layer": (lambda v: v.softmax(1) @ torch.ones(4, 3).triu(), "none", 4),
    "logits": (lambda v: v, "none", 4),
    "scaled logits": (lambda v: v / 0.7 - 1, "none", 4),
    "logits from what was joined": (lambda v: torch.cat([v[:, :3].sigmoid(), v[:, 3:]], 1)[:, 3:], "none", 6),
    "a swish": (functional.silu, "none", 4),
    "tanh": (torch.tanh, "none", 4),
    "the logarithm of a sigmoid, exp": (lambda v: functional.logsigmoid(v).exp(), "sigmoid", 1),
}


WARNED: dict[str, tuple[made.Form, str, int]] = {
    "clamp": (lambda v: (v / 40 + 0.5).clamp(0, 1), "sigmoid", 1),
    "a hard sigmoid": (lambda v: functional.hardsigmoid(v / 4), "sigmoid", 1),
    "a softmax over another axis": (lambda v: v.reshape(-1, 4, 2).softmax(2)[:, :, 0], "sigmoid", 8),
    "weighted softmaxes": (lambda v: 0.25 * v[:, :4].softmax(1) + 0.75 * v[:, 4:].softmax(1), "softmax", 8),
    "layers on a softmax": (lambda v: v.softmax(1) @ (torch.ones(4, 4) / 8 + torch.eye(4) / 2), "softmax", 4),
    "weighted logarithms": (
        lambda v: torch.logaddexp(v[:, :4].log_softmax(1), v[:, 4:].log_softmax(1)) - 0.6931472,
        "log_softmax",
        8,
    ),
}
OTHERS: dict[str, tuple[made.Form, str, int]] = {
    "mixed": (lambda v: torch.cat([v[:, :1].sigmoid(), v[:, 1:]], 1), "", 4),
    "two softmaxes": (lambda v: torch.cat([v[:, :2].softmax(1), v[:, 2:].softmax(1)], 1), "", 4),
    "log_sigmoid": (functional.logsigmoid, "", 1),
    "sigmoids": (torch.sigmoid, "", 2),
    "one softmax": (lambda v: v.softmax(1), "", 1),
    "constant": (lambda v: (0 * v).clamp(0, 1) + 0.5, "", 1),
    "dead": (lambda v: functional.relu(v - 1e4), "", 1),
    "decided": (lambda v: (1e6 * v).clamp(0, 1), "", 1),
    "one hot": (lambda v: functional.one_hot(v.argmax(1), 4).float(), "", 4),
    "reaching": (lambda v: (4 * v + 0.5).clamp(-1, 2), "", 1),
}
ALL = FORMS | WARNED | OTHERS
Heads = dict[str, tuple[Any, np.ndarray]]


@pytest.fixture(scope="module")
def heads() -> Heads:
    """By form, an output of one graph that has them all, and its values ``(N, size)`` on 32 images."""
    network = made.Applied({name: (form, size) for name, (form, _, size) in ALL.items()}).eval()
    model = trace(network, 32, 32).model
    merge_copies(model)
    clean(model)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    pixels = (pixels * np.linspace(0.1, 1, 32)[:, None, None, None]).astype(np.uint8)
    outputs = dict(zip(ALL, model.graph.outputs, strict=False))
    values = dict(zip(ALL, says(network, pixels), strict=False))
    return {name: (outputs[name], values[name].numpy().reshape(32, -1)) for name in ALL}


def settled(head: tuple[Any, np.ndarray], **fields: Any) -> Task:
    output, values = head
    size = values.shape[1]
    task = Task("a", **{"kind": "binary" if size == 1 else "multiclass", "size": size, **fields})
    (found,), _ = settle_activations([task], [output], {"a": values})
    return found


@pytest.mark.parametrize("name", FORMS)
def test_an_activation_is_found_however_it_is_written(name: str, heads: Heads) -> None:
    wanted = FORMS[name][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ActivationWarning)
        assert settled(heads[name]).activation == wanted
        if wanted != "none":  # said by hand, the same holds
            assert settled(heads[name], activation=wanted).activation == wanted
            with pytest.raises(TaskError, match="activation none is declared, but the network's graph ends in"):
                settled(heads[name], activation="none")


@pytest.mark.parametrize("name", WARNED)
def test_values_like_probabilities_without_an_operator_are_a_warning(name: str, heads: Heads) -> None:
    with pytest.warns(
        ActivationWarning, match=f"say so with activation={WARNED[name][1]}, otherwise with activation=none"
    ):
        assert settled(heads[name]).activation == "none"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ActivationWarning)
        assert settled(heads[name], activation=WARNED[name][1]).activation == WARNED[name][1]
        assert settled(heads[name], kind="regression").activation is None


@pytest.mark.parametrize("name", ["constant", "dead", "decided", "one hot", "reaching"])
def test_what_looks_like_probabilities_by_accident_is_no_warning(name: str, heads: Heads) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ActivationWarning)
        assert settled(heads[name]).activation == "none"


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mixed", {}, "concatenates parts with different activations \\(values 0 to 0: sigmoid; values 1 to 3: none\\)"),
        ("two softmaxes", {}, "concatenates parts .*values 0 to 1: softmax; values 2 to 3: softmax"),
        ("log_sigmoid", {}, "the logarithm of one probability, which no kind of task takes; return the logit"),
        ("sigmoids", {"kind": "binary"}, "two sigmoids are two answers.*declare it multiclass"),
        ("one softmax", {}, "softmax of one value is always the same"),
        ("logits", {"activation": "sigmoid"}, "activation sigmoid is declared, but the network's graph ends in Gemm.*none"),
        ("logits", {"activation": "softmax"}, "activation softmax is declared, but the network's graph ends in Gemm.*none"),
        ("softmax", {"activation": "log_softmax"}, "log_softmax is declared.*Softmax, which is softmax; write activation=softmax"),
        ("reaching", {"activation": "sigmoid"}, "activation sigmoid is declared, but on the verif.*values are from -"),
        ("mixed", {"activation": "softmax"}, "activation softmax is declared, but on the verif.*rows that sum to"),
    ],
)  # fmt: skip
def test_what_contradicts_is_an_error_that_says_both(
    name: str, fields: dict[str, Any], message: str, heads: Heads
) -> None:
    with pytest.raises(TaskError, match=message):
        settled(heads[name], **fields)


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
