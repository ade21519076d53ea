"""The form that a graph gets before Q/DQ for a processor: it computes the same, and ONNX Runtime then runs what it is meant to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from residual_graph import calibrated, linear

from mtl_deploy.calibration.int8.processor_form import in_processor_form
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.int8.quantize import quantize


def executed(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """Return the operators of the graph that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # the file is for this machine only, and ONNX Runtime warns of that
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def int8(model: onnx.ModelProto, photos: np.ndarray) -> onnx.ModelProto:
    result = quantize(model, calibrated(model, photos), place(model, "cpu")).model
    onnx.checker.check_model(result, full_check=True)
    return result


def formed(model: onnx.ModelProto) -> onnx.ModelProto:
    before = model.SerializeToString(deterministic=True)
    result = ir.to_proto(in_processor_form(model))
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    return result


def activated(sketch: Any, activation: Any, opset: int = 17) -> onnx.ModelProto:
    """Two convolutions with an activation between, which is a function of the graph and the first one's result."""
    graph = sketch(opset=opset)
    first = activation(graph, graph.conv(graph.normalised(), (3, 16), name="first", scale=0.6))
    linear(graph, graph.features(graph.conv(first, (16, 8), name="second")), (8, 2), name="out")
    return graph.model({"out": ("batch", 2)})


def silu(graph: Any, x: str) -> str:
    return str(graph.node("Mul", graph.node("Sigmoid", x, name="gate"), x, name="acted"))


def gelu(graph: Any, x: str) -> str:
    for name, number in {"root": 2**0.5, "one": 1, "half": 0.5}.items():
        graph.weight(name, np.float32(number))
    one_more = graph.node("Add", graph.node("Erf", graph.node("Div", x, "root", name="r"), name="e"), "one", name="p")
    return str(graph.node("Mul", x, graph.node("Mul", "half", one_more, name="h"), name="acted"))


def spelled(graph: Any, x: str, *, shift: float = 3, top: float = 6, early: bool = False, by: str = "Div") -> str:
    """``x * relu6(x + 3) / 6``, with the division before the product or after it."""
    for name, number in {"three": shift, "zero": 0, "six": top, "sixth": 6 if by == "Div" else 1 / 6}.items():
        graph.weight(name, np.float32(number))
    gate = graph.node("Clip", graph.node("Add", x, "three", name="up"), "zero", "six", name="gate")
    if early:
        return str(graph.node("Mul", x, graph.node(by, gate, "sixth", name="down"), name="acted"))
    return str(graph.node(by, graph.node("Mul", x, gate, name="both"), "sixth", name="acted"))


HARD = {
    "divided last": lambda graph, x: spelled(graph, x),
    "divided early": lambda graph, x: spelled(graph, x, early=True),
    "a sixth": lambda graph, x: spelled(graph, x, by="Mul"),
    "an early sixth": lambda graph, x: spelled(graph, x, early=True, by="Mul"),
    "two operators": lambda graph, x: str(
        graph.node("Mul", graph.node("HardSigmoid", x, name="gate", alpha=1 / 6, beta=0.5), x, name="acted")
    ),
}
SOFT = {"SiLU": silu, "GELU": gelu}


@pytest.mark.parametrize("name", [*HARD, *SOFT])
def test_the_form_computes_the_same(sketch: Any, photos: np.ndarray, run: Any, name: str) -> None:
    model = activated(sketch, (HARD | SOFT)[name])
    expected, found = run(model, photos, optimize=False), run(formed(model), photos, optimize=False)
    np.testing.assert_allclose(found["out"], expected["out"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", HARD)
def test_spelled_out_hard_activations_become_one_operator(sketch: Any, name: str) -> None:
    kinds = Counter(node.op_type for node in formed(activated(sketch, HARD[name])).graph.node)
    assert kinds["HardSwish"] == 1
    assert not {"Clip", "HardSigmoid", "Div", "Mul"} & set(kinds)


@pytest.mark.parametrize(
    "other",
    [
        lambda graph, x: spelled(graph, x, shift=2),
        lambda graph, x: spelled(graph, x, top=5),
        lambda graph, x: str(graph.node("Add", spelled(graph, x), "gate", name="read_twice")),
    ],
    ids=["another shift", "another top", "its gate is read again"],
)
def test_what_only_looks_like_one_stays(sketch: Any, photos: np.ndarray, run: Any, other: Any) -> None:
    model = activated(sketch, other)
    result = formed(model)
    kinds = {node.op_type for node in result.graph.node}
    assert "Clip" in kinds
    assert not {"HardSwish", "HardSigmoid"} & kinds
    np.testing.assert_allclose(run(result, photos)["out"], run(model, photos)["out"], rtol=1e-5, atol=1e-6)


def test_before_opset_14_there_is_no_hard_swish(sketch: Any) -> None:
    kinds = {node.op_type for node in formed(activated(sketch, spelled, opset=13)).graph.node}
    assert "Clip" in kinds
    assert "HardSwish" not in kinds


def prelu(*slopes: float, computed: bool = False) -> Any:
    """A PRelu with one slope per channel, or with one for all, which is a constant or another node's result."""

    def activation(graph: Any, x: str) -> str:
        slope = graph.weight("slope", np.resize(np.array(slopes, np.float32), (16 if len(slopes) > 1 else 1, 1, 1)))
        if computed:
            mean = graph.node("ReduceMean", x, name="mean", axes=[0, 2, 3], keepdims=1)
            slope = graph.node("Mul", mean, slope, name="of_the_image")
        return str(graph.node("PRelu", x, slope, name="acted"))

    return activation


@pytest.mark.parametrize("slopes", [(0.25, -0.5, 1.5, 0.0), (0.2,), (0.2, 0.2)], ids=["different", "one", "equal"])
def test_a_prelu_computes_the_same_to_the_bit(
    sketch: Any, photos: np.ndarray, run: Any, slopes: tuple[float, ...]
) -> None:
    model = activated(sketch, prelu(*slopes))
    result = formed(model)
    np.testing.assert_array_equal(run(result, photos, optimize=False)["out"], run(model, photos, optimize=False)["out"])
    kinds = Counter(node.op_type for node in result.graph.node)
    assert "PRelu" not in kinds
    assert kinds["LeakyRelu"] == (len(set(slopes)) == 1)


def test_a_prelu_whose_slopes_depend_on_the_image_stays(sketch: Any, photos: np.ndarray, run: Any) -> None:
    model = activated(sketch, prelu(0.25, 0.5, computed=True))
    result = formed(model)
    assert "PRelu" in {node.op_type for node in result.graph.node}
    np.testing.assert_allclose(run(result, photos)["out"], run(model, photos)["out"], rtol=1e-5)


def test_a_prelu_between_integer_layers(sketch: Any, photos: np.ndarray, run: Any, tmp_path: Path) -> None:
    for slopes, names in (((0.25, 0.1), {"Relu", "Neg"}), ((0.2,), {"QLinearLeakyRelu"})):
        model = activated(sketch, prelu(*slopes))
        result = int8(model, photos)
        kinds = executed(result, tmp_path)
        assert "PRelu" not in kinds
        assert names <= set(kinds)
        assert kinds["QLinearConv"] == 2
        expected, found = run(model, photos)["out"], run(result, photos)["out"]
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_openvino_makes_one_operator_of_a_prelu_again(sketch: Any, photos: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.read_model(int8(activated(sketch, prelu(0.25, 0.1)), photos).SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    told = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    names = [one["originalLayersNames"].value for one in told]
    assert sum("n_acted" in name for name in names) == 1
    assert not any("n_acted/" in name for name in names)  # its parts


def test_a_gate_of_another_tensor_is_no_silu(sketch: Any) -> None:
    def gated(graph: Any, x: str) -> str:
        return str(graph.node("Mul", x, graph.node("Sigmoid", graph.node("Neg", x, name="n"), name="g"), name="acted"))

    assert "QuickGelu" not in {node.op_type for node in formed(activated(sketch, gated)).graph.node}


def test_the_normalisation_stays_out_of_the_integer_layers_layout(
    sketch: Any, photos: np.ndarray, tmp_path: Path
) -> None:
    model = activated(sketch, lambda graph, x: graph.node("Relu", x, name="acted"))
    kinds = executed(int8(model, photos), tmp_path)
    assert kinds["BatchNormalization"] == 1
    assert not {"Mul", "Add"} & set(kinds)


def test_a_normalisation_within_the_network_does_too(sketch: Any, run: Any) -> None:
    graph = sketch(image="float")
    graph.weight("scale", np.array([2, 3, 4], np.float32).reshape(1, 3, 1, 1))
    graph.weight("shift", np.array([1, 0, -1], np.float32).reshape(1, 3, 1, 1))
    normal = graph.node("Add", graph.node("Mul", "image", "scale", name="scaled"), "shift", name="normal")
    linear(graph, graph.features(graph.conv(normal, (3, 8), name="first")), (8, 2), name="out")
    model = graph.model({"out": ("batch", 2)})
    result = formed(model)
    assert "BatchNormalization" in {node.op_type for node in result.graph.node}
    image = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(run(result, image)["out"], run(model, image)["out"], rtol=1e-5, atol=1e-5)


def test_a_scale_of_many_channels_stays(sketch: Any) -> None:
    def scaled(graph: Any, x: str) -> str:
        graph.weight("layer_scale", np.full((1, 16, 1, 1), 0.5, np.float32))
        graph.weight("layer_shift", np.full((1, 16, 1, 1), 0.1, np.float32))
        return str(graph.node("Add", graph.node("Mul", x, "layer_scale", name="s"), "layer_shift", name="acted"))

    kinds = [node.op_type for node in formed(activated(sketch, scaled)).graph.node]
    assert kinds.count("BatchNormalization") == 1  # of the image


def test_onnx_runtime_fuses_the_soft_activations(sketch: Any, photos: np.ndarray, tmp_path: Path) -> None:
    kinds = executed(int8(activated(sketch, silu), photos), tmp_path)
    assert kinds["QuickGelu"] == 1
    assert not {"Sigmoid", "Mul"} & set(kinds)
    assert kinds["QLinearConv"] == 2
    graph = sketch(opset=17)
    flat = graph.features(graph.conv(graph.normalised(), (3, 16), name="first"))
    matrix = graph.weight("matrix", graph.random.standard_normal((16, 16)).astype(np.float32))
    shift = graph.weight("bias", graph.random.standard_normal(16).astype(np.float32))
    x = graph.node("Add", graph.node("MatMul", flat, matrix, name="product"), shift, name="x")
    linear(graph, gelu(graph, x), (16, 2), name="out")
    kinds = executed(int8(graph.model({"out": ("batch", 2)}), photos), tmp_path)
    assert kinds["Gelu"] + kinds["BiasGelu"] == 1
    assert not {"Erf", "Div", "Mul", "Add"} & set(kinds)


def excited(sketch: Any, activation: Any, gate: str, **attributes: float) -> onnx.ModelProto:
    """Squeeze and excitation between two convolutions."""
    graph = sketch(opset=17)
    x = activation(graph, graph.conv(graph.normalised(), (3, 16), name="first", scale=0.6))
    squeezed = graph.node("GlobalAveragePool", x, name="squeezed")
    inner = graph.node("Relu", graph.conv(squeezed, (16, 8), name="reduce"), name="relu")
    scale = graph.node(gate, graph.conv(inner, (8, 16), name="expand", scale=2), name="scale_of", **attributes)
    last = graph.conv(graph.node("Mul", scale, x, name="excited"), (16, 8), name="last")
    linear(graph, graph.features(last), (8, 2), name="out")
    return graph.model({"out": ("batch", 2)})


def test_a_block_of_mobilenet_v3_runs_on_integers(sketch: Any, photos: np.ndarray, run: Any, tmp_path: Path) -> None:
    model = excited(sketch, lambda graph, x: graph.node("HardSwish", x, name="acted"), "HardSigmoid", alpha=1 / 6)
    result = int8(model, photos)
    kinds = executed(result, tmp_path)
    assert kinds["QuantizeLinear"] == 1  # of the image
    assert kinds["DequantizeLinear"] == 1  # in front of the head
    assert not {"HardSigmoid", "HardSwish", "Mul"} & set(kinds)
    assert kinds["QLinearMul"] == 2
    assert kinds["QLinearGlobalAveragePool"] == 1
    expected, found = run(model, photos)["out"], run(result, photos)["out"]
    assert np.abs(found - expected).max() < 0.08 * np.abs(expected).max()


def test_a_sigmoid_gate_rounds_no_more_than_the_layers_need(sketch: Any) -> None:
    placement = place(excited(sketch, silu, "Sigmoid"), "cpu")
    assert [edge.node for edge in placement.edges if edge.tensor == "acted"] == [
        "n_squeezed"
    ]  # the product reads it as it is
    assert {"excited", "squeezed", "first"} <= set(placement.tensors)


def test_a_sum_in_fp32_shares_what_an_integer_layer_reads(sketch: Any, photos: np.ndarray, tmp_path: Path) -> None:
    graph = sketch(opset=17)
    kept = graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="kept"), name="relu")
    total = graph.node("Add", graph.conv(kept, (8, 8), name="inner"), kept, name="total")
    linear(graph, graph.features(graph.conv(total, (8, 8), name="last")), (8, 2), name="out")
    model = graph.model({"out": ("batch", 2)})
    result = quantize(model, calibrated(model, photos), place(model, "cpu", ["n_kept"])).model
    kinds = executed(result, tmp_path)
    assert kinds["QLinearAdd"] == 1
    assert kinds["Conv"] + kinds["FusedConv"] == 1
