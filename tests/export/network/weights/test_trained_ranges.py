"""Ranges of training for quantization become those of the INT8 graphs, where these quantize the same tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_networks
import torch
import wild_quantized
from checkpoints import save
from PIL import Image

from mtl_deploy.export.cli import main
from mtl_deploy.export.network.checkpoint import load_checkpoint

FACTOR = 3.0  # what training's ranges are larger by than those of calibration, to tell them from each other


def widened(state: dict[str, Any]) -> dict[str, Any]:
    ends = ("_quantizer._amax", ".min_val", ".max_val")
    return {
        name: value * FACTOR if name.endswith(ends) and "weight" not in name else value for name, value in state.items()
    }


def fx() -> dict[str, Any]:
    return dict(wild_quantized.fx(small_networks.Shared()).state_dict())


def modelopt() -> dict[str, Any]:
    return wild_quantized.modelopt(small_networks.Shared())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder, random = tmp_path / "images", np.random.default_rng(1)
    folder.mkdir()
    for number in range(16):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number:02}.png")
    return folder


def ranges(bundle: Path) -> dict[str, tuple[float, float]]:
    document = json.loads((bundle / "calibration.json").read_text())
    return {name: tuple(ends) for name, ends in document["ranges"]["tensorrt"]["minmax"].items()}


def export(state: dict[str, Any], folder: Path, images: Path) -> tuple[Path, dict[str, Any]]:
    path = save(folder, state)
    arguments = [str(path), "--model", "small_networks:Shared", "--image-size", "64x64", "--no-separate", "-q", "-f"]
    tasks = ["--task", "age=regression", "--task", "gender=binary", "--task", "race=multiclass"]
    int8 = ["--calibration-data", str(images), "--calibration-method", "minmax", "--precision", "fp32,int8"]
    assert main([*arguments, *tasks, *int8, "-o", str(folder / "model.mtl")]) == 0
    return folder / "model.mtl", json.loads((folder / "model.mtl" / "manifest.json").read_text())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("write", [fx, modelopt])
def test_a_file_keeps_its_ranges(write: Callable[[], dict[str, Any]], prefix: str, tmp_path: Path) -> None:
    state = {prefix + name: value for name, value in write().items()}
    loaded = load_checkpoint(save(tmp_path, state), model="small_networks:Shared")
    assert loaded.trained is not None
    assert any("of their ranges where they quantize the same tensors" in note for note in loaded.notes)
    seen = loaded.trained.see(wild_quantized.images())
    assert len(seen) >= len(loaded.trained.ranges) >= 5
    for (
        one
    ) in seen:  # the images that it was trained on; a pool's input and output share one, and BatchNorm lags behind
        if one.mirrored:
            assert one.high == pytest.approx(np.abs(one.values).max(), rel=1e-4)
        else:
            assert one.high > 0.4 * one.values.max(), one.name
    assert len({one.values.shape for one in seen}) > 2


@pytest.mark.parametrize("write", [fx, modelopt])
def test_int8_graphs_take_the_trained_ranges(write: Callable[[], dict[str, Any]], tmp_path: Path, images: Path) -> None:
    state = widened(write())
    path, manifest = export(state, tmp_path, images)
    found = ranges(path)
    ends = ("input_quantizer._amax", "activation_post_process.max_val")
    trained = [float(value.abs().max()) for name, value in state.items() if name.endswith(ends) and value.numel() == 1]
    kept = {name for name, (_, high) in found.items() if any(np.isclose(high, value, rtol=1e-6) for value in trained)}
    assert manifest["calibration"]["ranges"].endswith(
        f"{len(kept)} of {len(found)} tensors keep the range that the network was trained with"
    )
    assert {"preprocess/shift_out", "relu"} <= kept  # the image and what the second convolution reads
    for graph, steps in (("int8-cpu.onnx", 255), ("int8.onnx", 127)):
        held = [onnx.numpy_helper.to_array(each) for each in onnx.load(path / graph).graph.initializer]
        scales = [float(each) for each in held if each.ndim == 0 and each.dtype in (np.float32, np.float16)]
        low, high = found["relu"]
        assert any(np.isclose(scale, (high - low) / steps, rtol=2e-3) for scale in scales), graph


def test_without_training_calibration_decides(tmp_path: Path, images: Path) -> None:
    _, manifest = export(dict(small_networks.Shared().state_dict()), tmp_path, images)
    assert manifest["calibration"]["ranges"] == "found on 8 images"


def test_names_of_another_placement_are_not_guessed(tmp_path: Path) -> None:
    state = fx()
    state["activation_post_process_9.activation_post_process.min_val"] = torch.tensor(-1.0)
    loaded = load_checkpoint(save(tmp_path, state), model="small_networks:Shared")
    assert loaded.trained is None
    assert any("ranges for INT8 are found anew" in note for note in loaded.notes)
