from __future__ import annotations

import json
from types import SimpleNamespace

from engine_graphs import needs_rtx, small_graph

from mtl_deploy.export.engine_build import build
from mtl_deploy.export.engine_layers import from_inspector, from_plan
from mtl_deploy.export.engine_options import EngineOptions
from mtl_deploy.export.engines import describe_layers
from mtl_deploy.runtime.tensorrt_library import Library, import_library


def layer(kind: str, form: str, layer_type: str = "CaskConvolution") -> dict[str, object]:
    tensors = [{"Name": "x", "Dimensions": [1, 3], "Format/Datatype": form}]
    return {"Name": kind, "LayerType": layer_type, "Inputs": tensors, "Outputs": tensors}


def test_the_inspectors_formats_are_told_apart() -> None:
    layers = [
        layer("a", "Int8 NC/32HW32"),
        layer("b", "Four wide channel vectorized row major Int8 format"),
        layer("c", "Channel major FP16 format where channel % 8 == 0"),
        layer("d", "Half"),
        layer("e", "Row major linear FP32"),
        layer("f", "Float"),
        layer("g", "BF16"),
        layer("h", "Float", "Constant"),
        layer("i", "Int64"),
    ]
    assert from_inspector(json.dumps({"Layers": layers})) == {"layers": {"fp16": 2, "fp32": 2, "int8": 2, "bf16": 1}}


def test_what_is_not_recognised_gives_nothing() -> None:
    for text in ("", "[]", "{}", json.dumps({"Layers": ["name only"]}), json.dumps({"Layers": [layer("x", "")]})):
        assert from_inspector(text) == {}
    rtx = Library("tensorrt-rtx", "1.7", SimpleNamespace())
    assert from_plan(rtx, b"\0" * 1000) == {}
    assert from_plan(Library("tensorrt", "10.3.0", SimpleNamespace()), b"plan") == {}


@needs_rtx
def test_a_real_plan_is_read() -> None:
    rtx = import_library("tensorrt-rtx")
    plan = build(small_graph(), "small.onnx", rtx, EngineOptions(library="tensorrt-rtx"), (1, 1, 2)).plan
    assert from_plan(rtx, plan)["layers"] == {"fp32": 1}


def test_layers_are_described_in_words() -> None:
    assert describe_layers({"layers": {"fp16": 20, "fp32": 3}}) == "20 layers in fp16, 3 in fp32"
    assert describe_layers({}) == ""
