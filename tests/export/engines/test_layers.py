from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_graphs import needs_rtx, small_graph

from mtl_deploy.export.engines.build import build
from mtl_deploy.export.engines.bundle_engines import _inspect, describe_layers
from mtl_deploy.export.engines.layers import from_inspector, from_plan
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.runtime.backends.tensorrt.library import Library, import_library
from mtl_deploy.runtime.cuda.gpu import find_gpu
from mtl_deploy.runtime.onnx_format.graph import read_graph
from tests.fakes.machine import engine_bundle, machine

__all__ = ["engine_bundle", "machine"]


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


def test_formats_and_types_apart_are_read_too_and_weights_where_shapes_are_free() -> None:
    unknown = "N/A due to dynamic shapes"
    split = {"Name": "x", "Format": "Four wide channel vectorized row major format", "Datatype": "Int8"}  # TensorRT 11
    free = {"Name": "x", "Format": unknown, "Datatype": unknown}
    old = {"Name": "x", "Format/Datatype": unknown}
    layers = [
        {"Name": "a", "LayerType": "kgen", "Inputs": [split], "Outputs": [split]},
        {
            "Name": "b",
            "LayerType": "kgen",
            "Inputs": [free],
            "Outputs": [free],
            "Weights": {"Type": "Half", "Count": 9},
        },
        {"Name": "c", "LayerType": "kgen", "Inputs": [old], "Outputs": [old], "Weights": {"Type": "Float", "Count": 9}},
        {"Name": "d", "LayerType": "kgen", "Inputs": [free], "Outputs": [free]},
        {"Name": "e", "LayerType": "kgen", "Inputs": [free], "Outputs": [split]},
    ]
    assert from_inspector(json.dumps({"Layers": layers})) == {"layers": {"int8": 2, "fp16": 1, "fp32": 1}}


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.3.0", "11.4.0"])
@pytest.mark.parametrize("batch_max", [1, 8])
def test_layers_by_type_are_told_for_static_and_dynamic_profiles(
    machine: Any, engine_bundle: Callable[..., Path], version: str, batch_max: int
) -> None:
    machine.install(version)
    folder = engine_bundle(batch_max, version=version)
    for precision in ("fp32", "fp16"):
        plan = (folder / f"{precision}.trt").read_bytes()
        layers = _inspect(import_library("tensorrt"), find_gpu(), plan)["layers"]
        nodes = len(read_graph((folder / f"{precision}.onnx").read_bytes()).nodes)
        assert sum(layers.values()) >= nodes // 2  # the tensors' types, not those of the weights of a few layers


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
