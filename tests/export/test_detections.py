"""Public networks that detect, from their file to boxes in an image: their rows are what their own code makes of their outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wild
import wild_detections
from engine_graphs import needs_rtx
from PIL import Image
from random_boxes import by_pycocotools_of

from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.cli import main
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.kinds.detection.detections import in_image
from mtl_deploy.runtime.kinds.detection.suppression import kept_rows
from mtl_deploy.runtime.loading import load

QUICK = ("yolop", "retinaface", "yolopose", "hybridnets")


def export(name: str, folder: Path, *more: str, table: str = "") -> int:
    checkpoint = wild.checkpoint(name, folder)
    (folder / "tasks.toml").write_text(wild_detections.TASKS[name] + table)
    height, width = wild.SIZES.get(name, (64, 64))
    model = [] if name == "yolopv2" else ["--model", f"wild:{name}"]
    size = ["--tasks", str(folder / "tasks.toml"), "--image-size", f"{height}x{width}", *wild.OPTIONS.get(name, ())]
    common = ["-o", str(folder / "x.mtl"), "--engine", "none", "--no-separate", "--threads", "1", "-q"]
    trust = ["--trust-pickle"] if name in ("yolopose", "yolopv2") else []
    return main([str(checkpoint), *model, *size, *trust, *common, *more])


def pixels(name: str, count: int) -> np.ndarray:
    height, width = wild.SIZES.get(name, (64, 64))
    return np.random.default_rng(3).integers(0, 255, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("form", ["decoded", "logits"])
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.extended) for name in wild_detections.TASKS],
)
def test_rows_and_boxes_are_those_of_the_networks_own_code(name: str, form: str, tmp_path: Path) -> None:
    assert export(name, tmp_path, "--precision", "fp32", "--outputs", form) == 0
    images = pixels(name, 3)
    signature = open_bundle(tmp_path / "x.mtl").manifest.signature
    task = signature.task("found")
    network = wild.trained(name)
    with torch.inference_mode():
        result = network(network_input(images, signature.preprocessing))
    size = (signature.preprocessing.height, signature.preprocessing.width)
    rows = wild_detections.theirs(name, network, result, size)
    with load(tmp_path / "x.mtl") as model:
        found = model(images)["found"]
        answers = model.predict(list(images))
    if form == "decoded":
        scale = np.abs(rows).max(axis=(0, 1))
        np.testing.assert_allclose(found / scale, rows / scale, atol=5e-4)
    for answer, wanted in zip(answers, rows, strict=True):
        boxes = kept_rows(wanted.astype(np.float32), task.options)
        mine, own = answer["found"].value, in_image(boxes, task.options.columns, place(*size, signature.preprocessing))
        assert len(mine) == len(own) > 0
        np.testing.assert_allclose(mine.scores, own.scores, atol=1e-4)
        np.testing.assert_allclose(np.sort(mine.boxes, axis=0), np.sort(own.boxes, axis=0), atol=0.05)


@pytest.mark.parametrize("name", ["yolop", pytest.param("retinaface", marks=pytest.mark.extended)])
def test_a_graph_that_suppresses_answers_as_one_that_does_not(name: str, tmp_path: Path) -> None:
    answers = {}
    for nms in ("runtime", "graph"):
        folder = tmp_path / nms
        folder.mkdir()
        assert export(name, folder, "--nms", nms) == 0
        manifest = json.loads((folder / "x.mtl" / "manifest.json").read_text())
        assert {artifact["precision"] for artifact in manifest["artifacts"]} == {"fp32", "fp16"}
        task = manifest["signature"]["tasks"][0]
        assert task["nms"] == nms
        with load(folder / "x.mtl", precision="fp32") as model:
            answers[nms] = model.predict(list(pixels(name, 3)))
            if nms == "graph":
                found = model(pixels(name, 3))["found"]
                assert found.shape == (3, task["top_k"], 6 + 2 * task["landmarks"])
    for one, other in zip(answers["runtime"], answers["graph"], strict=True):
        assert one["found"].value == other["found"].value
        assert len(one["found"].value)


def scenes(folder: Path, model: Any, count: int) -> dict[str, Any]:
    """Write images of several sizes, with boxes near some of those that the network finds; return the document in COCO's format."""
    random = np.random.default_rng(0)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "Vehicle"}]}
    (folder / "images").mkdir()
    for number in range(count):
        height, width = int(random.integers(60, 140)), int(random.integers(60, 200))
        pixels = natural_images(1, height, width, seed=number)[0]
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        document["images"].append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        boxes = model.predict(pixels)["found"].value.boxes
        for box in boxes[random.choice(len(boxes), 6, replace=False)] + random.normal(0, 2, (6, 4)):
            x1, y1, x2, y2 = (float(side) for side in np.clip(box, 0, [width, height, width, height]))
            size = [max(x2 - x1, 1.0), max(y2 - y1, 1.0)]
            place = len(document["annotations"]) + 1
            entry = {"id": place, "image_id": number, "category_id": 7, "bbox": [x1, y1, *size]}
            document["annotations"].append(entry | {"area": size[0] * size[1], "iscrowd": int(place % 7 == 0)})
    (folder / "found.json").write_text(json.dumps(document))
    return document


def test_accuracy_is_what_pycocotools_says_of_the_runtimes_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = "score_threshold = 0.0005\n"  # below that from which the accuracy counts
    assert export("yolop", tmp_path, "--precision", "fp32", table=everything) == 0
    bundle = str(tmp_path / "x.mtl")
    with load(bundle) as model:
        document = scenes(tmp_path, model, 14)
        results = []
        for image in document["images"]:
            found = model.predict(tmp_path / "images" / image["file_name"])["found"].value
            for box, score in zip(found.boxes.astype(float), found.scores.astype(float), strict=True):
                bbox = [*box[:2], *(box[2:] - box[:2])]
                results.append({"image_id": image["id"], "category_id": 7, "bbox": bbox, "score": score})
    wanted = by_pycocotools_of(document, results)
    capsys.readouterr()
    common = [bundle, "--calibration-data", str(tmp_path / "images"), "--evaluate-only", "--json", "-q"]
    for labels in (tmp_path / "found.json", tmp_path):  # the file itself, or the folder that it lies in
        assert calibrate([*common, "--labels", str(labels)]) == 0
        (cell,) = json.loads(capsys.readouterr().out)["accuracy"]["cells"]
        assert cell["samples"] == 14
        assert cell["metrics"] == pytest.approx(wanted, abs=2e-3)  # the input's float32 is not the image's
        assert 0.01 < wanted["map"] < wanted["map_50"] < 0.9


@pytest.mark.extended
def test_budgets_hold_for_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("yolop", tmp_path, "--precision", "fp32") == 0
    with load(tmp_path / "x.mtl") as model:
        scenes(tmp_path, model, 110)
    given = ["--calibration-data", str(tmp_path / "images"), "--labels", str(tmp_path / "found.json")]
    code = calibrate([str(tmp_path / "x.mtl"), *given, "--max-drop", "found=30%", "--json", "-q", "--threads", "1"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    cells = {cell["variant"]: cell for cell in found["accuracy"]["cells"]}
    assert {"fp32", "int8", "int8-cpu"} <= cells.keys()
    for cell in cells.values():
        assert cell["drop_low"] <= cell["drop"] <= cell["drop_high"]
        assert cell["metrics"].keys() == {"map", "map_50"}


@needs_rtx
def test_a_library_without_a_kernel_for_suppression_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export("yolop", tmp_path, "--nms", "graph", "--engine", "tensorrt-rtx") == 2
    assert "has no kernel for NonMaxSuppression, which task 'found' needs" in capsys.readouterr().err
    assert "no task is a detection" in refused(tmp_path, capsys)


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    checkpoint = wild.checkpoint("fairface", folder)
    assert main([str(checkpoint), "--model", "wild:fairface", "--task", "x=raw", "--nms", "graph"]) == 2
    return capsys.readouterr().err
