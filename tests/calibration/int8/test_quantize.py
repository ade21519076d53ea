"""Quantized graphs: their numbers against numpy, what ONNX Runtime makes of them, and that TensorRT-RTX builds them."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from residual_graph import Reading, calibrated, residual_graph

from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.int8.quantize import fp16_above, quantize, to_half_around, weight_scale
from mtl_deploy.calibration.observe.ranges import Range
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.runtime.errors import OptionError, WorkError

STYLES = ["tensorrt", "cpu"]
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed: mtl-deploy[tensorrt-rtx]"
)


@pytest.fixture(scope="module")
def model(sketch: Any) -> onnx.ModelProto:
    return residual_graph(sketch)


@pytest.fixture(scope="module")
def ranges(model: onnx.ModelProto, photos: np.ndarray) -> dict[str, Range]:
    return calibrated(model, photos)


def quantized(model: onnx.ModelProto, ranges: dict[str, Range], style: str, **options: Any) -> onnx.ModelProto:
    result = quantize(model, ranges, place(model, style, heads=options.pop("heads", False)), **options).model
    onnx.checker.check_model(result, full_check=True)
    return result


def as_numpy(value: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """ONNX's QuantizeLinear and DequantizeLinear."""
    kind = np.iinfo(zero.dtype)
    return ((np.clip(np.rint(value / scale) + zero, kind.min, kind.max) - zero) * scale).astype(np.float32)


@pytest.mark.parametrize("style", STYLES)
def test_inputs_outputs_and_the_original_stay_as_they_are(
    model: onnx.ModelProto, ranges: dict[str, Range], style: str
) -> None:
    before = model.SerializeToString(deterministic=True)
    result = quantized(model, ranges, style)
    assert model.SerializeToString(deterministic=True) == before
    for side in ("input", "output"):
        ours, theirs = ([(v.name, v.type) for v in getattr(each.graph, side)] for each in (result, model))
        assert ours == theirs


def test_the_tensorrt_style_is_symmetric_throughout(model: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    graph = Reading(quantized(model, ranges, "tensorrt"))
    pairs = [node for node in graph.nodes.values() if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = graph.weights[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        scale = graph.weights[node.input[1]]
        assert np.array_equal(scale, scale.astype(np.float16).astype(np.float32))  # typing it FP16 changes nothing


def test_the_tensorrt_style_has_no_q_dq_on_biases(model: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    graph = Reading(quantized(model, ranges, "tensorrt", heads=True))
    layers = [node for node in graph.nodes.values() if node.op_type in ("Conv", "Gemm")]
    assert {graph.reads(node.name, 2) for node in layers} == {"weight"}
    assert {graph.weights[node.input[2]].dtype for node in layers} == {np.dtype(np.float32)}


@pytest.mark.parametrize("style", STYLES)
def test_weights_are_rounded_a_channel(model: onnx.ModelProto, ranges: dict[str, Range], style: str) -> None:
    original, graph = Reading(model), Reading(quantized(model, ranges, style))
    for name in place(model, style).nodes:
        weight = original.weights[original.nodes[name].input[1]]
        dequantize = graph.producers[graph.nodes[name].input[1]]
        integers, scale, zero = (graph.weights[value] for value in dequantize.input)
        assert integers.dtype == zero.dtype == np.int8
        assert not zero.any()
        assert np.abs(integers.astype(int)).max() == 127
        largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))  # Conv, and Gemm with transB: channels first
        np.testing.assert_allclose(scale, largest / 127, rtol=1e-3)
        shape = (-1, *[1] * (weight.ndim - 1))
        np.testing.assert_array_equal(integers, np.clip(np.rint(weight / scale.reshape(shape)), -127, 127))


def test_seven_bit_weights_stay_within_minus_64_and_63(model: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    result = quantize(model, ranges, place(model, "cpu"), weight_bits=7)
    graph = Reading(result.model)
    weights = [
        graph.weights[graph.producers[graph.nodes[name].input[1]].input[0]] for name in place(model, "cpu").nodes
    ]
    assert min(weight.min() for weight in weights) >= -64
    assert max(weight.max() for weight in weights) == 63
    assert "7-bit weights" in result.description


def test_biases_of_the_cpu_style_have_the_product_of_both_scales(
    model: onnx.ModelProto, ranges: dict[str, Range]
) -> None:
    original, graph = Reading(model), Reading(quantized(model, ranges, "cpu"))
    for name in place(model, "cpu").nodes:
        data, weight, bias = (graph.producers[graph.nodes[name].input[position]] for position in range(3))
        integers, scale = graph.weights[bias.input[0]], graph.weights[bias.input[1]]
        assert integers.dtype == np.int32
        np.testing.assert_array_equal(scale, graph.weights[weight.input[1]] * graph.weights[data.input[1]])
        expected = original.weights[original.nodes[name].input[2]]
        np.testing.assert_allclose(integers * scale, expected, atol=float(scale.max()))


def test_a_bias_beyond_its_channels_weights_is_represented(sketch: Any, photos: np.ndarray, run: Any) -> None:
    graph = sketch()
    stem = graph.node("Relu", graph.conv(graph.normalised(), (3, 4), name="stem", scale=1e-12), name="relu")
    graph.weights["stem.weight"][0] = 0
    graph.weights["stem.bias"][:] = [2, 3, -1, 0.5]
    graph.gemm(graph.features(stem), (4, 2), name="age")
    model = graph.model({"age": ("batch", 2)})
    result = quantized(model, calibrated(model, photos), "cpu")
    np.testing.assert_allclose(run(result, photos)["age"], run(model, photos)["age"], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("style", STYLES)
def test_activations_are_rounded_as_numpy_rounds_them(
    model: onnx.ModelProto, ranges: dict[str, Range], photos: np.ndarray, run: Any, style: str
) -> None:
    result = quantized(model, ranges, style)
    names = [name.removesuffix("/dq") for name in Reading(result).producers if f"{name}".endswith("/dq")]
    names = [name for name in names if name in place(model, style).tensors]
    assert len(names) >= 7
    shown = onnx.ModelProto()
    shown.CopyFrom(result)
    known = {value.name: value for value in result.graph.value_info}
    shown.graph.output.extend(known[each] for name in names for each in (name, f"{name}/dq"))
    values = run(shown, photos, optimize=False)
    weights = Reading(result).weights
    for name in names:
        expected = as_numpy(values[name], weights[f"{name}/scale"], weights[f"{name}/zero"])
        step = float(weights[f"{name}/scale"])
        difference = np.abs(values[f"{name}/dq"] - expected)
        assert np.mean(difference > step / 2) < 1e-3, name  # a value between two steps may fall to either
        assert difference.max() < 1.5 * step


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_onnx_runtime_gives_what_fp32_gives_but_for_rounding(
    model: onnx.ModelProto, ranges: dict[str, Range], photos: np.ndarray, run: Any, style: str, heads: bool
) -> None:
    expected, found = run(model, photos), run(quantized(model, ranges, style, heads=heads), photos)
    for name, values in expected.items():
        assert not np.array_equal(found[name], values)
        assert np.abs(found[name] - values).max() < 0.05 * np.abs(values).max(), name


def test_onnx_runtime_fuses_the_cpu_style_into_integer_kernels(
    model: onnx.ModelProto, ranges: dict[str, Range], tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # the file is for this machine only, and ONNX Runtime warns of that
    content = quantized(model, ranges, "cpu").SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert kinds["QLinearConv"] == 6
    assert kinds["QLinearAdd"] == 2
    assert kinds["QGemm"] == 1
    assert kinds["QLinearGlobalAveragePool"] == 1
    assert kinds["QuantizeLinear"] == 1  # of the image
    assert not {"Conv", "FusedConv", "Relu", "GlobalAveragePool"} & set(kinds)
    assert kinds["Gemm"] + kinds["FusedGemm"] == 2  # the last layer of each head


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_the_rest_in_fp16_has_fp16_around_every_integer_layer(
    sketch: Any, photos: np.ndarray, run: Any, opset: int
) -> None:
    model = residual_graph(sketch, opset)
    result = quantized(model, calibrated(model, photos), "tensorrt")
    half = to_half_around(result, observe(model, [photos]))
    onnx.checker.check_model(half, full_check=True)
    types = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    graph = Reading(half)
    for name in place(model, "tensorrt").nodes:
        inputs = graph.nodes[name].input
        assert graph.reads(name, 0) == graph.reads(name, 1) == "DequantizeLinear"
        assert types[inputs[0]] == types[inputs[1]] == TensorProto.FLOAT16
        assert graph.weights[inputs[2]].dtype == np.float16
        assert types[graph.nodes[name].output[0]] == TensorProto.FLOAT16
    assert graph.weights["age_raw.weight"].dtype == np.float32
    before, after = Reading(result).weights, graph.weights
    assert all(np.array_equal(before[name], after[name]) for name in before if name.endswith("/q"))
    expected = run(model, photos)
    for shown in (half, emulate_half(half)):
        for name, values in run(shown, photos).items():
            assert np.abs(values - expected[name]).max() < 0.06 * np.abs(expected[name]).max()


def test_tensors_that_overflow_fp16_stay_in_fp32_around_their_q(sketch: Any, photos: np.ndarray, run: Any) -> None:
    graph = sketch(opset=17)
    large = graph.conv(graph.normalised(), (3, 8), name="stem", scale=1e5)
    small = graph.conv(graph.node("Relu", large, name="relu"), (8, 8), name="body", scale=1e-6)
    graph.gemm(graph.features(small), (8, 2), name="age")
    model = graph.model({"age": ("batch", 2)})
    half = to_half_around(quantized(model, calibrated(model, photos), "tensorrt"), observe(model, [photos]))
    onnx.checker.check_model(half, full_check=True)
    expected = run(model, photos)["age"]
    found = run(emulate_half(half), photos)["age"]
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_the_result_says_what_was_done(model: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    result = quantize(model, ranges, place(model, "tensorrt", skip=["n_b1"]))
    assert result.description == "6 of 9 weighted layers in INT8"
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["kept"].keys() == {"n_b1", "n_age_raw", "n_gender_raw"}
    assert record["ranges"].keys() == set(place(model, "tensorrt", skip=["n_b1"]).tensors)


def test_wrong_bits_and_missing_ranges_are_errors(model: onnx.ModelProto, ranges: dict[str, Range]) -> None:
    with pytest.raises(OptionError, match="8 or 7 bits, not 4"):
        quantize(model, ranges, place(model, "cpu"), weight_bits=4)
    with pytest.raises(WorkError, match="tensor 'normal' has no range"):
        quantize(model, {}, place(model, "cpu"))


def test_scales_are_rounded_up_to_the_next_number_of_fp16() -> None:
    scales = np.array([1 / 3, 1, 1e-9, 0.1, 1e6], np.float32)
    found = fp16_above(scales)
    assert (found >= scales).all()
    np.testing.assert_allclose(found[[0, 1, 3]], scales[[0, 1, 3]], rtol=2**-10)
    assert found[2] == np.float32(np.finfo(np.float16).smallest_subnormal)
    assert found[4] == 1e6


def test_a_channel_of_zeros_has_a_usable_step() -> None:
    weight = np.array([[0, 0], [1, -2]], np.float32)
    np.testing.assert_allclose(weight_scale(weight, 0), [1, 2 / 127])
    np.testing.assert_allclose(weight_scale(weight, 1), [1 / 127, 2 / 127])


@needs_rtx
@pytest.mark.parametrize("half", [False, True], ids=["rest in fp32", "rest in fp16"])
def test_tensorrt_rtx_builds_integer_layers(
    model: onnx.ModelProto, ranges: dict[str, Range], photos: np.ndarray, half: bool
) -> None:
    from mtl_deploy.export.engines.build import build
    from mtl_deploy.export.engines.layers import from_plan
    from mtl_deploy.export.options.engines import EngineOptions
    from mtl_deploy.runtime.backends.tensorrt.library import import_library

    result = quantized(model, ranges, "tensorrt")
    if half:
        result = to_half_around(result, observe(model, [photos]))
    library = import_library("tensorrt-rtx")
    options = EngineOptions(library="tensorrt-rtx")
    plan = build(result.SerializeToString(), "int8.onnx", library, options, (1, 1, 4)).plan
    layers = from_plan(library, plan)["layers"]
    assert layers["int8"] >= 6  # convolutions, and the first layer of the age head
    assert layers.get("fp32", 0) <= 3  # the last layer of each head


def test_tensors_below_fp16s_range_stay_in_fp32_around_their_q(sketch: Any, photos: np.ndarray, run: Any) -> None:
    graph = sketch(opset=17)
    small = graph.conv(graph.normalised(), (3, 8), name="stem", scale=1e-9)
    graph.weights["stem.bias"][:] *= 1e-9
    large = graph.conv(graph.node("Relu", small, name="relu"), (8, 8), name="body", scale=1e8)
    graph.gemm(graph.features(large), (8, 2), name="age")
    model = graph.model({"age": ("batch", 2)})
    expected = run(model, photos)["age"]
    result = quantized(model, calibrated(model, photos), "tensorrt")
    for statistics in (None, observe(model, [photos])):
        half = to_half_around(result, statistics)
        onnx.checker.check_model(half, full_check=True)
        for shown in (result, half, emulate_half(half)):
            assert np.abs(run(shown, photos)["age"] - expected).max() < 0.2 * np.abs(expected).max()
