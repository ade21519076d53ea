"""Public networks of landmarks and rotations, from the file of their weights to their own metric in every precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wild
from PIL import Image

from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.export.cli import main as export
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.images.loading import load_pixels

COUNT = 40
COLUMNS: dict[str, tuple[str, ...]] = {
    "pfld": tuple(f"landmarks.{point}.{axis}" for point in range(98) for axis in "xy"),
    "sixdrepnet": ("rotation.yaw", "rotation.pitch", "rotation.roll"),
    "celeba": tuple(
        f"landmarks.{point}.{axis}"
        for point in ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
        for axis in "xy"
    ),
}
METRICS = {"pfld": "nme", "sixdrepnet": "geodesic", "celeba": "mae"}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_public_network_is_judged_as_its_authors_judge_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    height, width = wild.SIZES.get(name, (64, 64))
    (tmp_path / "tasks.toml").write_text(wild.TASKS[name])
    given = ["--model", f"wild:{name}", "--tasks", str(tmp_path / "tasks.toml"), "--image-size", f"{height}x{width}"]
    bundle = tmp_path / "x.mtl"
    common = [
        *wild.OPTIONS.get(name, ()),
        "-o",
        str(bundle),
        "--engine",
        "none",
        "--no-separate",
        "--threads",
        "1",
        "-q",
    ]
    assert export([str(wild.checkpoint(name, tmp_path)), *given, *common]) == 0
    photos = tmp_path / "photos"
    photos.mkdir()
    random = np.random.default_rng(0)
    lines = [",".join(["file", *COLUMNS[name]])]
    for number in range(COUNT):
        small = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(small).resize((2 * width, 3 * height), Image.Resampling.BICUBIC).save(photos / f"{number}.png")
        lines.append(
            ",".join([f"{number}.png", *(f"{value:.2f}" for value in random.uniform(1, 60, len(COLUMNS[name])))])
        )
    (photos / "labels.csv").write_text("\n".join(lines))
    data = ["--calibration-data", str(photos), "--labels", str(photos / "labels.csv"), "--json"]
    capsys.readouterr()
    assert calibrate([str(bundle), *data, "--threads", "1", "-q"]) == 0
    cells = json.loads(capsys.readouterr().out)["accuracy"]["cells"]
    task = COLUMNS[name][0].split(".")[0]
    found = {cell["variant"]: cell for cell in cells if cell["task"] == task}
    assert set(found) >= {"fp32", "fp16", "int8", "int8-cpu"}
    for cell in found.values():
        assert next(iter(cell["metrics"])) == METRICS[name]
        assert np.isfinite([*cell["metrics"].values(), cell["drop"]]).all()


def test_landmarks_of_a_public_network_lie_where_its_authors_draw_them(tmp_path: Path) -> None:
    """PFLD's own demo multiplies its answers by the width and height of the crop that it stretched to the network's size."""
    (tmp_path / "tasks.toml").write_text(wild.TASKS["pfld"])
    given = [
        "--model",
        "wild:pfld",
        "--tasks",
        str(tmp_path / "tasks.toml"),
        "--image-size",
        "{}x{}".format(*wild.SIZES["pfld"]),
    ]
    common = [*wild.OPTIONS["pfld"], "-o", str(tmp_path / "x.mtl"), "--engine", "none", "--no-separate", "-q"]
    precision = ["--precision", "fp32", "--threads", "1"]
    assert export([str(wild.checkpoint("pfld", tmp_path)), *given, *common, *precision]) == 0
    image = np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8)
    preprocessing = open_bundle(tmp_path / "x.mtl").manifest.signature.preprocessing
    with load(tmp_path / "x.mtl") as model, torch.inference_mode():
        value: Any = model.predict(image)["landmarks"].value
        raw = wild.trained("pfld")(network_input(load_pixels(image, preprocessing)[0][None], preprocessing))[1]
    wanted = raw.numpy().reshape(98, 2) * (90, 150)
    np.testing.assert_allclose(value.numbers.reshape(98, 2), wanted, atol=1e-2)
    assert value["97"] == pytest.approx(wanted[97], abs=1e-2)
