"""Public networks that detect, from their file to boxes in an image: their rows are what their own code makes of their outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
from mtl_deploy.export.engines.check import _compare
from mtl_deploy.export.kinds.detection import nodes, suppression
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.bundle.reference import read
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.kinds.detection.detections import in_image
from mtl_deploy.runtime.kinds.detection.suppression import kept_rows
from mtl_deploy.runtime.loading import load

QUICK = {("yolopv2", "decoded"), ("retinaface", "decoded"), ("hybridnets", "decoded"), ("retinaface", "logits")}


AREA = '[[task]]\nname = "area"\nkind = "segmentation"\noutput = 1\nlabels = ["other", "drivable"]\n'


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


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (name, form) if (name, form) in QUICK else pytest.param(name, form, marks=pytest.mark.extended)
        for name in wild_detections.TASKS
        for form in ("decoded", "logits")
    ],
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
        assert export(name, folder, "--nms", nms, table=AREA if name == "yolop" else "") == 0
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
        assert one == other  # the other task's as well
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
    capsys.readouterr()
    code = calibrate([str(tmp_path / "x.mtl"), *given, "--max-drop", "found=30%", "--json", "-q", "--threads", "1"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    cells = {cell["variant"]: cell for cell in found["accuracy"]["cells"]}
    assert {"fp32", "int8", "int8-cpu"} <= cells.keys()
    for cell in cells.values():
        assert cell["drop_low"] <= cell["drop"] <= cell["drop_high"]
        assert cell["metrics"].keys() == {"map", "map_50"}
    require_decoding_in_fp32(tmp_path / "x.mtl" / "int8.onnx", 8)


def test_decoding_stays_in_fp32(tmp_path: Path) -> None:
    assert export("yolopv2", tmp_path, "--precision", "fp32,fp16", "--nms", "graph") == 0
    require_decoding_in_fp32(tmp_path / "x.mtl" / "fp16.onnx", 40)


def require_decoding_in_fp32(file: Path, least: int) -> None:
    """Check that nothing of FP16 and no Q/DQ pair reaches the nodes that decode, of which there are at least so many."""
    model = onnx.shape_inference.infer_shapes(onnx.load(file), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    half = [node for node in model.graph.node if types.get(node.output[0]) == onnx.TensorProto.FLOAT16]
    assert len(half) > 5
    decoding = [node for node in model.graph.node if node.name.startswith("decode/")]
    assert len(decoding) >= least
    for node in decoding:
        assert types[node.output[0]] != onnx.TensorProto.FLOAT16, node.name
        assert "QuantizeLinear" not in node.op_type
        assert not any(types.get(name) == onnx.TensorProto.FLOAT16 for name in node.input), node.name


@pytest.mark.parametrize("form", [pytest.param("cxcywh", marks=pytest.mark.extended), "xyxy"])
def test_anchors_come_from_a_file(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    centres = [
        [(column + 0.5) * step, (row + 0.5) * step, side, side]
        for step, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
        for row in range(64 // step)
        for column in range(64 // step)
        for side in sides
    ]
    anchors = np.array(centres, np.float32)
    given = anchors if form == "cxcywh" else wild_detections.corners(anchors).astype(np.float32)
    np.save(tmp_path / "anchors.npy", given)
    monkeypatch.chdir(tmp_path)
    table = wild_detections.TASKS["retinaface"]
    kept = "\n".join(line for line in table.splitlines() if not line.startswith(("anchors", "strides")))
    answers = []
    for name, text in (("own", table), ("file", f'{kept}\nanchors_file = "anchors.npy"\nanchors_format = "{form}"\n')):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setitem(wild_detections.TASKS, "retinaface", text)
        assert export("retinaface", folder, "--precision", "fp32") == 0
        with load(folder / "x.mtl") as model:
            answers.append(model(pixels("retinaface", 2))["found"])
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-3)


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


def half_as_wide(steps: nodes.Steps, centre: Any, extent: Any) -> list[Any]:
    half = steps.times(extent, 0.45, "half")
    return [steps.add("Sub", "low", centre, half), steps.add("Add", "high", centre, half)]


def without_objectness(steps: nodes.Steps, parts: Any, options: Any) -> Any:
    return parts["scores"]


def too_patient(steps: nodes.Steps, boxes: Any, scores: Any, options: Any, rows: int) -> Any:
    return REAL_KEPT(steps, boxes, scores, replace(options, iou_threshold=0.95), rows)


REAL_KEPT = suppression._kept
LOOSE = "score_threshold = 0.05\niou_threshold = 0.2\n"  # so that there is something to suppress


@pytest.mark.parametrize(
    ("nms", "module", "name", "fault"),
    [
        ("runtime", nodes, "_around", half_as_wide),
        ("runtime", nodes, "_scores", without_objectness),
        ("graph", suppression, "_kept", too_patient),
    ],
)
def test_a_graph_that_decodes_wrongly_is_not_delivered(
    nms: str,
    module: Any,
    name: str,
    fault: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, name, fault)
    assert export("yolop", tmp_path, "--precision", "fp32", "--nms", nms, table=LOOSE) == 1
    assert "no match with the network: fp32.onnx, task 'found'" in capsys.readouterr().err
    assert not (tmp_path / "x.mtl").exists()


def test_rows_belong_to_one_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export("yolop", tmp_path, "--precision", "fp32", "--dynamic-size", "32") == 2
    assert "leave --dynamic-size out" in capsys.readouterr().err


def test_an_engine_that_suppresses_is_verified_from_the_bundles_reference(tmp_path: Path) -> None:
    assert export("yolop", tmp_path, "--precision", "fp32", "--nms", "graph", table=LOOSE) == 0
    bundle = open_bundle(tmp_path / "x.mtl")
    reference = read(bundle)
    assert reference is not None
    signature = bundle.manifest.signature
    task = signature.task("found")
    with load(tmp_path / "x.mtl") as model:
        found = model(reference.images)["found"]
    for wrong in (False, True):
        if wrong:
            found = found.copy()
            found[:, 1] = found[:, 0]  # one box twice
        row = _compare("x.trt", task, signature, found, reference.outputs["found"], 0.05, reference.margins["found"])
        assert (row.excess <= 1) is not wrong
