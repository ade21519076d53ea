"""Files and folders whose names are not UTF-8 or hold line ends, through every command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import small_networks
import torch
from PIL import Image

from mtl_deploy.bench.cli import main as bench
from mtl_deploy.calibration.cli import main as calibrate
from mtl_deploy.export.cli import main
from mtl_deploy.runtime.bundle.manifest import open_bundle
from mtl_deploy.runtime.cli import main as infer

RAW = os.fsdecode(b"\xe9\n\xff")  # Latin-1, with a line end
TASKS = ["--task", "age=regression", "--task", "gender=binary", "--task", "race=multiclass"]


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_no_command_fails_for_a_name_that_is_not_utf_8(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / f"here{RAW}"
    (images := here / f"images{RAW}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for position in range(12):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(images / f"{position}{RAW}.png")
    checkpoint = here / f"model{RAW}.pt"
    if form == "torch":
        torch.save(small_networks.make().state_dict(), checkpoint)
    else:
        save = pytest.importorskip("safetensors.torch").save
        checkpoint.write_bytes(save(small_networks.make().state_dict()))
    options = ["--model", "small_networks:make", *TASKS, "--image-size", "16x16", "--engine", "none", "--threads", "1"]
    options += ["--images", str(images), "--samples", "8", "--precision", "fp32"]
    assert main([str(checkpoint), *options, "-o", str(here)]) == 0
    bundle = here / f"model{RAW}.mtl"
    assert open_bundle(bundle).manifest.provenance["checkpoint"]["file"] == "model\\xe9\n\\xff.pt"
    if form != "torch":
        return

    (images / f"bad{RAW}.png").write_bytes(b"nothing")
    data = ["--calibration-data", str(images), "--threads", "1"]
    capsys.readouterr()
    assert calibrate([str(bundle), *data]) == 0
    assert r"  bad\udce9\u000a\udcff.png: not an image" in capsys.readouterr().out  # in one line
    (left_out,) = open_bundle(bundle).manifest.calibration["left_out"]["first"]
    assert left_out == "bad\\xe9\n\\xff.png"
    capsys.readouterr()
    assert infer([str(bundle), str(images), "--json", "--show", str(here / f"shown{RAW}")]) == 2  # one image is bad
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 12
    assert len(list((here / f"shown{RAW}").iterdir())) == 12
    files = {option: here / f"result{RAW}.{option}" for option in ("json", "csv", "report")}
    run = [str(bundle), "--precision", "fp32", "--quick", "--duration", "0.1", "--isolation", "none", "--quiet"]
    assert bench([*run, *(text for option, file in files.items() for text in (f"--{option}", str(file)))]) == 0
    for file in files.values():
        assert file.read_text(encoding="utf-8")
    assert bench(["compare", str(files["json"]), str(files["json"])]) == 0
