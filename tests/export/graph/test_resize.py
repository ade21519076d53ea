"""``interpolate`` at odd sizes: PyTorch and ONNX Runtime agree, and TensorRT-RTX builds what torch.onnx wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from engine_graphs import needs_rtx
from torch import nn
from torch.nn import functional

from mtl_deploy.export.engines.build import build
from mtl_deploy.export.engines.bundle_engines import find_builder
from mtl_deploy.export.graph import opset, passes
from mtl_deploy.export.graph.trace import trace
from mtl_deploy.export.graph.variants import require_valid, serialize
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.export.targets.linter import check, find_target

HEIGHT, WIDTH = 13, 17
UP, DOWN = (31, 45), (7, 9)
BILINEAR = {"mode": "bilinear", "align_corners": False}
CORNERS = {"mode": "bilinear", "align_corners": True}
BICUBIC = {"mode": "bicubic", "align_corners": False}
MODES: dict[str, dict[str, Any]] = {
    "nearest-x2": {"mode": "nearest", "scale_factor": 2.0},
    "nearest-x1.7": {"mode": "nearest", "scale_factor": 1.7},
    "nearest-up": {"mode": "nearest", "size": UP},
    "nearest-down": {"mode": "nearest", "size": DOWN},
    "nearest-exact-up": {"mode": "nearest-exact", "size": UP},
    "nearest-exact-down": {"mode": "nearest-exact", "size": DOWN},
    "bilinear-x2": {**BILINEAR, "scale_factor": 2.0},
    "bilinear-x1.7": {**BILINEAR, "scale_factor": 1.7},
    "bilinear-x1.7-recomputed": {**BILINEAR, "scale_factor": 1.7, "recompute_scale_factor": True},
    "bilinear-up": {**BILINEAR, "size": UP},
    "bilinear-down": {**BILINEAR, "size": DOWN},
    "bilinear-to-one": {**BILINEAR, "size": (1, 1)},
    "bilinear-whole": {**BILINEAR, "size": (2 * HEIGHT, 3 * WIDTH)},
    "corners-x2": {**CORNERS, "scale_factor": 2.0},
    "corners-up": {**CORNERS, "size": UP},
    "corners-down": {**CORNERS, "size": DOWN},
    "corners-whole": {**CORNERS, "size": (2 * HEIGHT, 2 * WIDTH)},
    "bicubic-x2": {**BICUBIC, "scale_factor": 2.0},
    "bicubic-up": {**BICUBIC, "size": UP},
    "bicubic-down": {**BICUBIC, "size": DOWN},
    "bicubic-corners": {"mode": "bicubic", "align_corners": True, "size": UP},
    "area-up": {"mode": "area", "size": UP},
    "area-down": {"mode": "area", "size": DOWN},
}
ANTIALIASED = {**BILINEAR, "size": DOWN, "antialias": True}


class Interpolating(nn.Module):
    """An output a form."""

    def __init__(self, *forms: dict[str, Any]) -> None:
        super().__init__()
        self.forms = forms

    def forward(self, x: torch.Tensor) -> object:
        return (*(functional.interpolate(x, **form) for form in self.forms), x)


def traced(*forms: dict[str, Any], multiple: int = 0) -> ir.Model:
    model = trace(Interpolating(*forms).eval(), HEIGHT, WIDTH, multiple=multiple).model
    passes.merge_copies(model, (HEIGHT, WIDTH) if multiple else None)
    passes.clean(model)
    opset.write_opset(model, None)
    return model


def differences(model: ir.Model, *forms: dict[str, Any], size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[float]:
    content = serialize(model)
    require_valid(content)
    image = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, *size)).astype(np.float32))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[: len(forms)]
    expected = [functional.interpolate(image, **form).numpy() for form in forms]
    assert [array.shape for array in found] == [array.shape for array in expected]
    return [float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)]


@pytest.fixture(scope="module")
def every_mode() -> ir.Model:
    return traced(*MODES.values())


def test_pytorch_and_onnx_runtime_agree_at_odd_sizes(every_mode: ir.Model) -> None:
    assert every_mode.opset_imports[""] == 17
    errors = dict(zip(MODES, differences(every_mode, *MODES.values()), strict=True))
    assert {name: error for name, error in errors.items() if error > 2e-5} == {}


def test_they_agree_at_another_size_where_sizes_are_free() -> None:
    names = ["nearest-x2", "nearest-x1.7", "nearest-up", "bilinear-x2", "bilinear-x1.7", "bicubic-up", "corners-up"]
    forms = [MODES[name] for name in names]
    model = traced(*forms, multiple=1)
    assert max(differences(model, *forms, size=(11, 8))) < 2e-5


def test_whole_ratios_become_scales_and_others_keep_their_sizes(every_mode: ir.Model) -> None:
    scaled = {
        name: len(output.producer().inputs) == 3  # data, roi, scales
        for name, output in zip(MODES, every_mode.graph.outputs, strict=False)
        if output.producer().op_type == "Resize"
    }
    assert scaled["bilinear-whole"]
    assert scaled["corners-whole"]
    assert scaled["bilinear-x2"]
    assert not scaled["bilinear-up"]
    assert not scaled["bilinear-down"]


def test_antialiasing_takes_opset_18_and_no_tensorrt_reads_it() -> None:
    model = traced(ANTIALIASED)
    assert model.opset_imports[""] == 18
    assert max(differences(model, ANTIALIASED)) < 2e-5
    (finding,) = check(serialize(model), find_target("tensorrt-10.3"), "fp32.onnx")
    assert "antialiasing is not read" in str(finding)


@needs_rtx
def test_tensorrt_rtx_builds_them() -> None:
    builder = find_builder(EngineOptions(library="tensorrt-rtx"))
    assert not isinstance(builder, str)
    model = traced(*(form for name, form in MODES.items() if not name.startswith("area")))
    model.graph.inputs[0].name = "image"
    content = serialize(model)
    assert check(content, find_target("tensorrt-rtx-1.7"), "fp32.onnx") == []
    assert build(content, "fp32.onnx", builder.library, builder.options, (1, 1, 2)).plan
