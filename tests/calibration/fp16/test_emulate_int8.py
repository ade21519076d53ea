"""What is computed in integers is what the graph says, to the bit, and only FP16 around INT8 layers is rounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from mtl_deploy.calibration.fp16 import emulate, emulate_int8
from mtl_deploy.calibration.int8.fp16_around import to_half_around
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.int8.quantize import quantize
from mtl_deploy.calibration.observe.ranges import Range
from mtl_deploy.calibration.observe.statistics import observe

STEP = 2.0**-4
Run = Callable[..., dict[str, np.ndarray]]


def whole(random: np.random.Generator, shape: tuple[int, ...], *, most: int, channels: int) -> np.ndarray:
    """A weight whose scale is 1/64 in each channel of axis ``channels``, in whole steps, so that FP32 computes without rounding."""
    steps = random.integers(-most, most + 1, shape).astype(np.float32)
    np.moveaxis(steps, channels, 0)[(slice(None), *(0,) * (len(shape) - 1))] = 127
    return steps / 64


def layers(sketch: Any, *, most: int = 40) -> onnx.ModelProto:
    """A network with each form of an INT8 layer: before Q, with and without ReLU and ReLU6, and with a float result."""
    random = np.random.default_rng(5)
    graph = sketch(image="float", opset=17, size=8)

    def layer(op_type: str, data: str, shape: tuple[int, ...], name: str, channels: int = 0, **attributes: Any) -> str:
        weight = graph.weight(f"{name}.weight", whole(random, shape, most=most, channels=channels))
        inputs = [data, weight]
        if op_type != "MatMul":
            count = shape[channels] if op_type != "ConvTranspose" else shape[1]
            bias = random.integers(-3, 4, count).astype(np.float32)
            inputs.append(graph.weight(f"{name}.bias", bias))
        return graph.node(op_type, *inputs, name=name, **attributes)

    pads = {"pads": [1, 1, 1, 1]}
    first = graph.node("Relu", layer("Conv", "image", (16, 3, 3, 3), "stem", **pads), name="stem_relu")
    six = [graph.weight("low", np.float32(0)), graph.weight("high", np.float32(6))]
    wide = graph.node("Clip", layer("Conv", first, (32, 16, 1, 1), "wide"), *six, name="relu6")
    deep = graph.node("Clip", layer("Conv", wide, (32, 1, 3, 3), "deep", group=32, **pads), *six, name="deep_relu6")
    narrow = layer("Conv", deep, (16, 32, 1, 1), "narrow")  # a float result, by a matrix product
    total = graph.node("Add", narrow, first, name="sum")
    half = layer("Conv", total, (16, 16, 1, 1), "half", strides=[2, 2])
    other = layer("Conv", total, (16, 16, 3, 3), "other", strides=[2, 2], **pads)
    joined = graph.node("Relu", graph.node("Add", half, other, name="joined"), name="joined_relu")
    block = layer("Conv", joined, (16, 16, 3, 3), "block", **pads)  # a float result, in FP32
    up = layer(
        "ConvTranspose", graph.node("Add", block, joined, name="again"), (16, 8, 2, 2), "up", channels=1, strides=[2, 2]
    )
    tokens = graph.node("Transpose", up, name="tokens", perm=[0, 2, 3, 1])
    mixed = graph.node("Relu", layer("MatMul", tokens, (8, 8), "mixed", channels=1), name="mixed_relu")
    mixed = layer("MatMul", mixed, (8, 8), "mixed_again", channels=1)
    features = graph.node("ReduceSum", mixed, graph.weight("axes", np.array([1, 2])), name="features", keepdims=0)
    hidden = graph.node("Relu", layer("Gemm", features, (8, 8), "hidden", transB=1), name="hidden_relu")
    layer("Gemm", graph.node("Abs", layer("Gemm", hidden, (8, 8), "more", channels=1), name="abs"), (8, 2), "y", 1)
    return graph.model({"y": ("batch", 2)})


def quantized(model: onnx.ModelProto, image: np.ndarray) -> onnx.ModelProto:
    """In the style of TensorRT, with powers of two as scales."""
    placement = place(model, "tensorrt")
    assert set(placement.kept) == {"n_y"}
    seen = observe(model, [image])
    scales = {name: 2.0 ** np.ceil(np.log2(seen[name].absmax / 127)) for name in placement.tensors}
    return quantize(model, {name: Range(-127 * step, 127 * step) for name, step in scales.items()}, placement).model


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    steps = np.random.default_rng(6).integers(-40, 41, (3, 3, 8, 8))
    return (steps * STEP).astype(np.float32)


def executed(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("exact", [True, False], ids=["S8 weights", "U8 weights"])
def test_integers_give_the_same_bits(
    sketch: Any, run: Run, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    if exact and not emulate_int8.adds_exactly():
        pytest.skip("products of U8 and S8 saturate here")
    monkeypatch.setattr(emulate_int8, "adds_exactly", lambda: exact)
    model = quantized(layers(sketch), image)
    expected = run(model, image, optimize=False)["y"]
    assert len(np.unique(expected)) == expected.size
    emulated = emulate_int8.emulate_int8(model)
    onnx.checker.check_model(emulated, full_check=False)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(emulated, image, optimize=optimize)["y"], expected)
    found = executed(emulated, tmp_path)
    assert (found["QLinearConv"], found["QLinearMatMul"], found["QGemm"]) == (4, 1, 1)
    assert found["MatMulIntegerToFloat"] == 4
    assert (found["Conv"], found["ConvTranspose"]) == (1, 1)
    types = {tensor.data_type for tensor in emulated.graph.initializer if tensor.name.endswith(("/weight", "exact/q"))}
    assert types == {onnx.TensorProto.INT8 if exact else onnx.TensorProto.UINT8}


def test_sizes_may_be_free(sketch: Any, run: Run, image: np.ndarray) -> None:
    model = quantized(layers(sketch), image)
    expected = run(model, image, optimize=False)["y"]
    for side, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        side.dim_param = name
    del model.graph.value_info[:]
    np.testing.assert_array_equal(run(emulate_int8.emulate_int8(model), image)["y"], expected)


def test_fp16_is_rounded_around_int8_layers_as_before(sketch: Any, run: Run, image: np.ndarray) -> None:
    """Steps so small that FP16 holds every sum: then both emulations give the same, up to the sums at the end."""
    few = np.clip(image, -3 * STEP, 3 * STEP)
    half = to_half_around(quantized(layers(sketch, most=1), few))
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in half.graph.initializer)
    rounded, integers = (run(form(half), few)["y"] for form in (emulate.emulate_half, emulate_int8.emulate_int8))
    exact = run(quantized(layers(sketch, most=1), few), few, optimize=False)["y"]
    np.testing.assert_allclose(integers, exact, rtol=1e-3)
    np.testing.assert_allclose(integers, rounded, rtol=1e-3)


def test_what_an_int8_layer_gives_to_q_is_not_rounded_to_fp16(sketch: Any, run: Run) -> None:
    graph = sketch(image="float", opset=17, size=2)
    for name in ("first", "second", "y"):
        graph.weight(f"{name}.weight", np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) * np.float32(127 / 64))
    data = graph.node("Conv", "image", "first.weight", name="first")
    data = graph.node("Conv", data, "second.weight", name="second")
    graph.node("Conv", data, "y.weight", name="y")
    model = graph.model({"y": ("batch", 3, 2, 2)})
    placement = place(model, "tensorrt")
    # 33 * 127 = 4191 steps need 13 bits. FP16 makes 4192 of them, and 65.5 of 65.484375: the even integer is then 66, not 65.
    ranges = {name: Range(-127.0, 127.0) for name in ("image", "first", "second")}
    half = to_half_around(quantize(model, ranges, placement).model)
    picture = np.full((1, 3, 2, 2), 33, np.float32)
    found = {
        form: float(run(form(half), picture)["y"][0, 0, 0, 0] / (127 / 64))
        for form in (emulate.emulate_half, emulate_int8.emulate_int8)
    }
    assert list(found.values()) == [131, 129]


def test_a_bias_that_fits_no_integer_is_added_in_fp32(sketch: Any, run: Run, image: np.ndarray) -> None:
    model = layers(sketch)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "wide.bias")
    values = onnx.numpy_helper.to_array(bias).copy()
    values[3] = 2.0**30
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    model = quantized(model, image)
    expected = run(model, image, optimize=False)["y"]
    np.testing.assert_array_equal(run(emulate_int8.emulate_int8(model), image)["y"], expected)


def test_a_processor_with_vnni_adds_exactly() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "vnni" not in flags:
        pytest.skip("a processor without VNNI, or not x86")
    assert emulate_int8.adds_exactly()
