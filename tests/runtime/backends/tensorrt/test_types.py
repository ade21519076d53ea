"""TensorRT 8.6 is not strongly typed: it is told each layer's type. Its builder needs a GPU, so its objects have stand-ins here."""

from __future__ import annotations

from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import pytest

from mtl_deploy.runtime.backends.tensorrt.library import Library

LayerType = Enum("LayerType", "CONVOLUTION CONSTANT SHAPE QUANTIZE DEQUANTIZE CAST MATRIX_MULTIPLY")
BuilderFlag = IntEnum("BuilderFlag", "FP16 INT8 OBEY_PRECISION_CONSTRAINTS TF32")
Flags = IntEnum("Flags", "EXPLICIT_BATCH", start=0)


class Layer:
    def __init__(self, name: str, kind: LayerType = LayerType.CONVOLUTION) -> None:
        self.name, self.type, self.num_outputs = name, kind, 1
        self.precision: str | None = None
        self.outputs: dict[int, str] = {}

    def set_output_type(self, index: int, dtype: str) -> None:
        self.outputs[index] = dtype


@pytest.fixture
def old() -> Library:
    module = SimpleNamespace(
        NetworkDefinitionCreationFlag=Flags,
        LayerType=LayerType,
        BuilderFlag=BuilderFlag,
        float32="float32",
        float16="float16",
    )
    return Library("tensorrt", "8.6.2", module)


def obey(library: Library, layers: list[Layer], types: dict[str, str]) -> set[Any]:
    flags: set[Any] = set()
    network = SimpleNamespace(num_layers=len(layers), get_layer=lambda index: layers[index])
    library.obey_types(network, SimpleNamespace(set_flag=flags.add), types)
    return flags


def test_networks_have_an_explicit_batch(old: Library) -> None:
    assert not old.strongly_typed
    assert old.network_flags() == 1 << Flags.EXPLICIT_BATCH


def test_an_fp16_graphs_layers_get_their_own_types(old: Library) -> None:
    layers = [
        Layer("conv"),
        Layer("head", LayerType.MATRIX_MULTIPLY),
        Layer("cast", LayerType.CAST),
        Layer("made by the parser"),
    ]
    flags = obey(old, layers, {"conv": "fp16", "head": "fp32", "cast": "fp16"})
    assert flags == {BuilderFlag.FP16, BuilderFlag.OBEY_PRECISION_CONSTRAINTS}
    assert [(layer.precision, layer.outputs) for layer in layers] == [
        ("float16", {0: "float16"}),
        ("float32", {0: "float32"}),
        (None, {}),
        (None, {}),
    ]


def test_next_to_q_dq_only_fp32_is_fixed(old: Library) -> None:
    layers = [Layer("q", LayerType.QUANTIZE), Layer("conv"), Layer("head")]
    flags = obey(old, layers, {"q": "int8", "conv": "fp16", "head": "fp32"})
    assert flags == {BuilderFlag.FP16, BuilderFlag.INT8, BuilderFlag.OBEY_PRECISION_CONSTRAINTS}
    assert [layer.precision for layer in layers] == [None, None, "float32"]


def test_an_fp32_graph_needs_no_flag(old: Library) -> None:
    layers = [Layer("conv")]
    assert obey(old, layers, {"conv": "fp32"}) == set()
    assert layers[0].precision is None


@pytest.mark.parametrize(("version", "flag"), [("10.3.0", 1 << 1), ("11.0.0", 0)])
def test_later_libraries_take_the_graphs_types(version: str, flag: int) -> None:
    names = IntEnum("Strong", "EXPLICIT_BATCH STRONGLY_TYPED", start=0) if flag else IntEnum("None_", "OTHER", start=0)  # type: ignore[misc]
    library = Library("tensorrt", version, SimpleNamespace(NetworkDefinitionCreationFlag=names))
    assert library.strongly_typed
    assert library.network_flags() == flag
    assert obey(library, [Layer("conv")], {"conv": "fp16"}) == set()
