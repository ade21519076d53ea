"""Float64 becomes the truth only where it computes what float32 computes, however badly a network is conditioned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import given_graphs
import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.network.given.agreement import IMAGES, agrees
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing

Export = Callable[..., Path]
SIZE = given_graphs.SIZE
PICTURES = network_input(natural_images(IMAGES, SIZE, SIZE, seed=1), Preprocessing(height=SIZE, width=SIZE))
TASKS = ("--task", "age=regression", "--task", "race=multiclass", "--image-size", str(SIZE), "--engine", "none")


def with_front(*nodes: onnx.NodeProto, **constants: np.ndarray) -> onnx.ModelProto:
    """Return a graph that does something to its image first; the last node makes ``x``."""
    image = ("image", onnx.TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    return given_graphs.graph(front=list(nodes), image=image, more=constants)


SAME = {
    "plain": lambda: with_front(helper.make_node("Identity", ["image"], ["x"])),
    "pooled": lambda: with_front(
        helper.make_node(
            "AveragePool", ["image"], ["x"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1
        )
    ),
}
OTHER = {
    "LRN": lambda: with_front(helper.make_node("LRN", ["image"], ["x"], size=3, alpha=1.0, beta=0.75)),
    "Resize": lambda: with_front(
        helper.make_node(
            "Resize", ["image", "", "scales"], ["x"], mode="linear", coordinate_transformation_mode="align_corners"
        ),
        scales=np.array([1, 1, 0.53, 0.53], np.float32),
    ),
}


@pytest.mark.parametrize("style", [*SAME, *OTHER])
def test_float64_is_the_truth_where_it_agrees_with_float32(style: str, tmp_path: Path, export_file: Export) -> None:
    file = tmp_path / "given.onnx"
    file.write_bytes({**SAME, **OTHER}[style]().SerializeToString())
    bundle = export_file(file, *TASKS, "--precision", "fp32", "--no-separate")
    manifest = json.loads((bundle / "manifest.json").read_text())
    said = any("own float32 answers are the truth" in note for note in manifest["provenance"]["notes"])
    assert said == (style in OTHER)
    assert all(bool(row["floor"]) != said for row in manifest["verification"])


class Steep(torch.nn.Module):
    """Amplifies rounding as deep networks without trained statistics do: each layer normalises to a narrow range."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(12))
        self.wrong = wrong

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        value = images
        for layer in self.layers:
            value = torch.sin(9 * layer(value))
        return [value.mean((2, 3)) + self.wrong]


def run(network: torch.nn.Module) -> Any:
    return torch.inference_mode()(network)


def test_an_ill_conditioned_network_keeps_its_float64() -> None:
    single, double = run(Steep()), run(Steep().double())
    assert float((single(PICTURES[:1])[0] - double(PICTURES[:1].double())[0]).abs().max()) > 1e-4
    assert agrees(single, double, PICTURES)


def test_what_is_off_by_little_or_of_another_shape_is_noticed() -> None:
    flat = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    spread = float(flat(PICTURES).detach().std(0).max())

    def off(by: float) -> Any:
        return run(lambda images: [flat.double()(images) + by * spread])  # type: ignore[arg-type]

    def single(images: torch.Tensor) -> Any:
        return [flat.float()(images).detach()]

    assert agrees(single, off(1e-3), PICTURES)  # a spread is four deviations
    assert not agrees(single, off(1e-2), PICTURES)
    assert not agrees(single, off(float("nan")), PICTURES)
    assert not agrees(single, lambda images: [flat.double()(images)[:, :1].detach()], PICTURES)
