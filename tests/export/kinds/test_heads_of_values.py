"""Vectors, rotations and embeddings from a checkpoint to the accuracy table, in every precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.calibration.accuracy.matrix import AccuracyMatrix
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.cli import main as infer
from mtl_deploy.runtime.kinds.rotation.matrices import from_angles
from tests.networks.head_networks import POINTS, SIDE, TASKS, Heads

WIDE, HIGH = 96, 48  # of the photos: 32x16 of the input, below 8 rows of border


def exported(folder: Path, *options: str) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(Heads().state_dict(), folder / "heads.pt")
    (folder / "tasks.toml").write_text(TASKS)
    model = ["--model", "tests.networks.head_networks:Heads", "--tasks", str(folder / "tasks.toml")]
    size = ["--image-size", f"{SIDE}x{SIDE}", "--fit", "letterbox", "--threads", "1", "--engine", "none", "-q"]
    assert export([str(folder / "heads.pt"), *model, *size, *options, "-o", str(folder / "heads.mtl")]) == 0
    return folder / "heads.mtl"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("heads"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("plain"), "--outputs", "logits")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in two sizes, with labels of all tasks, in a folder as ``--labels`` takes it."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    columns = [f"landmarks.{point}.{axis}" for point in POINTS for axis in "xy"]
    columns += [f"box.{side}" for side in ("left", "top", "right", "bottom")]
    columns += ["gaze.yaw", "gaze.distance", "pose.yaw", "pose.pitch", "pose.roll"]
    lines = [",".join(["file", *columns])]
    for number in range(160):
        small = random.integers(0, 256, (6, 9, 3), dtype=np.uint8)
        factor = 1 + number % 2
        photo = Image.fromarray(small).resize((factor * WIDE, factor * HIGH), Image.Resampling.BICUBIC)
        photo.save(folder / f"{number:03}.png")
        places = factor * random.uniform(0, 48, 10)
        turned = random.uniform(-60, 60, 5)
        numbers = [*places, turned[0], turned[1] / 60, *turned[2:]]
        lines.append(",".join([f"{number:03}.png", *(f"{value:.3f}" for value in numbers)]))
    (folder / "labels.csv").write_text("\n".join(lines))
    pairs = [f"{a:03}.png,{(a + step) % 160:03}.png,{step % 2}" for a in range(160) for step in (1, 2)]
    (folder / "identity.csv").write_text("\n".join(["a,b,same", *pairs]))
    return folder


@pytest.fixture(scope="module")
def calibrated(bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "heads.mtl"
    budget = "landmarks=500%,box=100,gaze=500%,pose=180,identity=100%"
    data = ["--calibration-data", str(photos), "--labels", str(photos), "--max-drop", budget]
    assert calibrate([str(bundle), *data, "-o", str(target), "--threads", "1", "-q"]) == 0
    return target


def raw_outputs(pixels: np.ndarray) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return Heads().eval()(network_input(pixels, Preprocessing(SIDE, SIDE)))


def wanted_outputs(pixels: np.ndarray) -> dict[str, np.ndarray]:
    raw = raw_outputs(pixels)
    first = normalize(raw["pose"][:, :3])
    second = raw["pose"][:, 3:]
    second = normalize(second - (first * second).sum(1, keepdim=True) * first)
    matrix = torch.stack([first, second, torch.linalg.cross(first, second)], 2)
    return {
        "landmarks": (raw["landmarks"].flatten(1) * 0.25 + 0.5).numpy(),
        "box": (raw["box"] * 8 + torch.tensor([4.0, 4, 28, 28])).numpy(),
        "gaze": (raw["gaze"] * torch.tensor([30.0, 1])).numpy(),
        "pose": matrix.flatten(1).numpy(),
        "identity": normalize(raw["identity"].flatten(1)).numpy(),
    }


def test_each_graph_gives_what_the_network_means(bundle: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    wanted = wanted_outputs(pixels)
    with load(bundle) as model:
        for name, found in model(pixels).items():
            np.testing.assert_allclose(found, wanted[name], atol=1e-4)
    for name, values in wanted.items():
        with load(bundle / "separate" / f"{name}.onnx") as model:
            np.testing.assert_allclose(model(pixels)[name], values, atol=1e-4)
    rows = open_bundle(bundle).manifest.verification
    assert {row["task"] for row in rows if row["logit_error"] is not None} == set(wanted)


def test_raw_outputs_decode_to_the_same_predictions(bundle: Path, plain: Path, photos: Path) -> None:
    with load(bundle) as decoded, load(plain) as raw:
        pixels = np.random.default_rng(2).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        np.testing.assert_allclose(raw(pixels)["pose"], raw_outputs(pixels)["pose"].numpy(), atol=1e-4)
        for photo in ("000.png", "001.png"):
            one, other = (model.predict(photos / photo) for model in (decoded, raw))
            for name in one:
                np.testing.assert_allclose(np.asarray(one[name].value), np.asarray(other[name].value), atol=2e-4)
                assert str(one[name]) == str(other[name]), name


def test_raw_and_decoded_graphs_are_as_accurate(
    bundle: Path, plain: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--evaluate-only", "--calibration-data", str(photos), "--labels", str(photos), "--threads", "1", "--json"]
    found = []
    for each in (bundle, plain):
        capsys.readouterr()
        assert calibrate([str(each), *data, "-q"]) == 0
        cells = json.loads(capsys.readouterr().out)["accuracy"]["cells"]
        found.append({(cell["task"], cell["variant"]): cell["metrics"] for cell in cells})
    assert found[0].keys() == found[1].keys()
    for key, metrics in found[0].items():
        assert metrics
        assert metrics == pytest.approx(found[1][key], rel=1e-3, abs=1e-3), key


def test_decoding_stays_in_fp32(bundle: Path) -> None:
    for name in ("fp16.onnx", "separate/pose.fp16.onnx"):
        graph = onnx.load(bundle / name).graph
        halves = {value.name for value in graph.initializer if value.data_type == onnx.TensorProto.FLOAT16}
        halves |= {node.output[0] for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == 10}
        decoding = [node for node in graph.node if node.name.startswith("decode/")]
        assert {node.op_type for node in decoding} >= {"Gather", "ReduceSum", "Div", "Concat"}
        assert not [node.name for node in decoding if set(node.input) & halves]


def test_int8_leaves_decoding_alone(calibrated: Path) -> None:
    graph = onnx.load(calibrated / "int8.onnx").graph
    quantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    decoding = [node for node in graph.node if node.name.startswith("decode/")]
    assert decoding
    assert quantized
    assert not [node.name for node in decoding if set(node.input) & quantized]


def test_predictions_are_in_the_images_own_frame(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with load(bundle) as model:
        for photo, factor in (("000.png", 3), ("001.png", 6)):
            found = model.predict(photos / photo)
            shares, box = model(photos / photo)["landmarks"][0], model(photos / photo)["box"][0]
            x, y = found["landmarks"].value["right_eye"]
            assert (x, y) == pytest.approx((factor * 32 * shares[2], factor * (32 * shares[3] - 8)), abs=1e-2)
            assert found["landmarks"].unit == "pixels"
            assert found["box"].value["left"] == pytest.approx(factor * box[0], abs=1e-2)
            assert found["box"].value["bottom"] == pytest.approx(factor * (box[3] - 8), abs=1e-2)
            assert found["gaze"].unit is None
            assert found["gaze"].value.units == ("degrees", "metres")
    shown = tmp_path / "shown.png"
    assert infer([str(bundle), str(photos / "001.png"), "--show", str(shown)]) == 0
    text = capsys.readouterr().out
    for name in ("landmarks", "gaze", "pose", "identity"):
        assert str(found[name]) in text
    assert infer([str(bundle), str(photos / "001.png"), "--json"]) == 0
    data: Any = json.loads(capsys.readouterr().out)["predictions"][0]["tasks"]
    assert len(data["identity"]["value"]) == 16
    assert data["identity"]["length"] == pytest.approx(1, abs=1e-5)
    assert data["landmarks"]["values"]["nose.y"] == pytest.approx(found["landmarks"].value["nose.y"])
    assert data["gaze"]["units"] == {"yaw": "degrees", "distance": "metres"}
    assert np.array(data["pose"]["matrix"]).shape == (3, 3)
    picture = np.asarray(Image.open(shown).convert("RGB")).astype(int)
    green = (np.abs(picture - (0, 200, 83)) < 8).all(axis=-1)
    red = (np.abs(picture - (230, 40, 40)) < 8).all(axis=-1)
    assert np.count_nonzero(green) > 50, "the points and the box are not in the picture"
    assert np.count_nonzero(red) > 5, "the axes are not in the picture"


def test_accuracy_is_in_the_images_pixels_degrees_and_pairs(calibrated: Path, photos: Path) -> None:
    matrix = AccuracyMatrix.from_dict(open_bundle(calibrated).manifest.accuracy)
    labels = np.genfromtxt(photos / "labels.csv", delimiter=",", skip_header=1)[:, 1:]
    with load(calibrated) as model:
        found = [model.predict(photos / f"{number:03}.png") for number in range(160)]
    points = np.array([each["landmarks"].value.numbers for each in found]).reshape(-1, 3, 2)
    truth = labels[:, :6].reshape(-1, 3, 2)
    eyes = np.linalg.norm(truth[:, 0] - truth[:, 1], axis=1)
    errors = np.linalg.norm(points - truth, axis=2).mean(axis=1) / eyes
    turned = np.array([each["pose"].value for each in found])
    inner = np.trace(turned.transpose(0, 2, 1) @ from_angles(labels[:, 12:]), axis1=1, axis2=2)
    degrees = np.degrees(np.arccos(np.clip((inner - 1) / 2, -1, 1)))
    for name, each in (("landmarks", errors), ("pose", degrees)):
        cell = matrix.cell(name, "fp32")
        figure = next(iter(cell.metrics.values()))
        middle, error = each.mean(), each.std() / np.sqrt(cell.samples)
        assert abs(figure - middle) < 5 * error, "not the mean over a part of the images"
        assert cell.samples < 160
    assert set(matrix.cell("landmarks", "fp32").metrics) >= {"nme", "mae", "point_distance", "mae:left_eye.x"}
    assert next(iter(matrix.cell("gaze", "fp32").metrics)) == "spread_error"
    assert matrix.cell("pose", "int8").unit == "degrees"
    assert set(matrix.cell("identity", "fp32").metrics) == {"verification", "verification_auc"}
    assert matrix.cell("identity", "int8").mean_error < 0.2
    for name in ("landmarks", "box", "gaze", "pose", "identity"):
        for variant in ("fp16", "int8", "int8-cpu"):
            cell = matrix.cell(name, variant)
            assert cell.drop is not None
            assert cell.drop_low <= cell.drop <= cell.drop_high
    text = matrix.text()
    for words in (
        "normalised mean error",
        "mean absolute error of left_eye.x, pixels",
        "mean geodesic error, degrees",
        "mean absolute error of distance (metres)",
        "verification accuracy, %",
        "mean difference from fp32, 1 - cosine",
    ):
        assert words in text


def test_two_bundles_of_other_sizes_are_compared_in_the_images_pixels(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stretched = exported(other, "--fit", "stretch")
    data = ["--calibration-data", str(photos), "--labels", str(photos)]
    capsys.readouterr()
    assert calibrate(["compare", str(bundle), str(stretched), *data, "--json", "-q"]) in (0, 3)
    found = json.loads(capsys.readouterr().out)
    by_task = {each["task"]: each for each in found["tasks"]}
    assert by_task["landmarks"]["metric"] == "nme"
    assert by_task["box"]["unit"] == "pixels"
    assert by_task["identity"]["metric"] == "verification"


def test_the_benchmark_runs_them(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    run = ["--precision", "FP32", "--quick", "--duration", "0.1", "--isolation", "none", "--quiet", "--json", str(out)]
    assert bench([str(bundle), *run]) == 0
    (measured,) = json.loads(out.read_text())["batches"]
    assert {"shared", "separate"} <= set(measured["contestants"])
