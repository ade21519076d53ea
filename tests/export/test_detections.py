"""Public networks that detect, from their file to boxes in an image: their rows are what their own code makes of their outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import wild
import wild_detections

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
