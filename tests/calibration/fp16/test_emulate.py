"""The emulation rounds as FP16 does, where ONNX Runtime on a CPU does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from mtl_deploy.calibration.fp16.emulate import emulate_half, widen_half
from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.runtime.errors import VerificationError


def elementwise(sketch: Any, factor: float) -> onnx.ModelProto:
    """``x * factor / factor`` in FP16, between two layers that only copy."""
    graph = sketch(image="float", size=2)
    graph.weight("copy", np.ones((3, 1, 1, 1), np.float32))
    graph.weight("factor", np.float32(factor))
    data = graph.node("Conv", "image", "copy", name="first", group=3)
    data = graph.node("Div", graph.node("Mul", data, "factor", name="larger"), "factor", name="back")
    graph.node("Conv", data, "copy", name="y", group=3)
    return to_half(graph.model({"y": ("batch", 3, 2, 2)}), {}).model


IMAGE = np.array([0.1, 1 / 3, 2049, 1e-6, 60000, -7, 0.7, 3, 12.34, 1e-8, 65519, 5], np.float32).reshape(1, 3, 2, 2)


@pytest.mark.parametrize("optimize", [False, True])
def test_values_are_those_of_fp16_arithmetic(sketch: Any, run: Any, optimize: bool) -> None:
    emulated = emulate_half(elementwise(sketch, 3.0))
    onnx.checker.check_model(emulated, full_check=True)
    with np.errstate(over="ignore"):
        expected = (IMAGE.astype(np.float16) * np.float16(3) / np.float16(3)).astype(np.float32)
    assert np.isinf(expected).sum() == 2
    np.testing.assert_array_equal(run(emulated, IMAGE, optimize=optimize)["y"], expected)


def test_onnx_runtime_hides_rounding_and_overflow_on_a_cpu(sketch: Any, run: Any) -> None:
    """Why the emulation exists. Where this fails, ONNX Runtime has learned FP16, and ``docs/fp16.md`` wants an update."""
    values = run(elementwise(sketch, 3.0), IMAGE, optimize=False)["y"]
    assert np.isfinite(values).all()
    assert values.max() > 60000


def test_what_selects_values_is_not_rounded_twice(sketch: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = sketch(image="float", size=16)
    data = graph.node("Relu", graph.conv("image", (3, 8), name="first", scale=1.0), name="relu")
    data = graph.node("MaxPool", data, name="pool", kernel_shape=[2, 2], strides=[2, 2])
    ends = [graph.weight("low", np.float32(-0.5)), graph.weight("high", np.float32(6))]
    data = graph.node("Clip", graph.conv(data, (8, 8), name="second"), *ends, name="clip")
    shared = graph.node("Transpose", data, name="moved", perm=[0, 2, 3, 1])
    graph.node("Mul", shared, graph.node("Relu", shared, name="again"), name="y")
    half = to_half(graph.model({"y": ("batch", 8, 8, 8)}), {}).model
    image = 1e3 * np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    once = emulate_half(half)
    monkeypatch.setattr("mtl_deploy.calibration.fp16.emulate._KEEPING", frozenset())
    everywhere = emulate_half(half)
    casts = [sum(node.op_type == "Cast" for node in model.graph.node) for model in (once, everywhere)]
    assert casts[0] <= casts[1] - 4
    for optimize in (False, True):
        found, expected = (run(model, image, optimize=optimize)["y"] for model in (once, everywhere))
        np.testing.assert_array_equal(found, expected)
    assert expected.max() > 30


@pytest.mark.parametrize("optimize", [False, True])
def test_a_cast_to_fp16_stays_one_in_front_of_what_selects_values(run: Any, optimize: bool) -> None:
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        onnx.helper.make_node("Relu", ["half"], ["relu"]),
        onnx.helper.make_node("Mul", ["relu", "factor"], ["product"]),
        onnx.helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    shape = ("batch", 3, 2, 2)
    image, result = (onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "y"))
    factor = onnx.numpy_helper.from_array(np.array(3, np.float16), "factor")
    made = onnx.helper.make_graph(nodes, "g", [image], [result], [factor])
    half = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    emulated = emulate_half(half)
    onnx.checker.check_model(emulated, full_check=True)
    with np.errstate(over="ignore"):
        expected = (np.maximum(IMAGE.astype(np.float16), 0) * np.float16(3)).astype(np.float32)
    np.testing.assert_array_equal(run(emulated, IMAGE, optimize=optimize)["y"], expected)


def test_a_network_agrees_with_the_reference(multi_head: Any, run: Any, photos: np.ndarray) -> None:
    half = to_half(multi_head(), {}).model
    expected = dict(
        zip([o.name for o in half.graph.output], ReferenceEvaluator(half).run(None, {"image": photos}), strict=True)
    )
    for name, values in run(emulate_half(half), photos).items():
        np.testing.assert_allclose(values, expected[name], rtol=2e-3, atol=1e-3 * np.abs(expected[name]).max())


def test_the_borders_stay(multi_head: Any) -> None:
    half = to_half(multi_head(), {}).model
    emulated = emulate_half(half)
    assert [value.SerializeToString() for value in emulated.graph.input] == [
        v.SerializeToString() for v in half.graph.input
    ]
    assert [(v.name, v.type) for v in emulated.graph.output] == [(v.name, v.type) for v in half.graph.output]
    assert {weight.data_type for weight in emulated.graph.initializer} == {TensorProto.FLOAT}


def test_an_fp32_graph_stays_as_it_is(multi_head: Any) -> None:
    model = multi_head()
    assert [node.op_type for node in emulate_half(model).graph.node] == [node.op_type for node in model.graph.node]


def test_computed_in_float32_an_fp16_graph_is_the_one_that_it_was_made_from() -> None:
    original = _two_layers()
    half = to_half(original, {}).model
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    assert any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in half.graph.initializer)
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)

    def run(model: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    np.testing.assert_allclose(run(widen_half(half, weights)), run(original), rtol=1e-6)
    for tensor in half.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            array = onnx.numpy_helper.to_array(tensor).copy()
            array.flat[0] = np.nextafter(array.flat[0], np.float16(np.inf))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
            break
    with pytest.raises(VerificationError, match=f"weight '{tensor.name}' is not the FP32 graph's"):
        widen_half(half, weights)


def test_a_weight_whose_rounding_was_chosen_is_one_of_the_two_values_beside_the_original() -> None:
    original = _two_layers()
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    exact = weights["b"].copy()
    exact.flat[1] = 0.5
    below, above = (np.where(exact.astype(np.float16) <= exact, *pair) for pair in _beside(exact))
    below.flat[1] = above.flat[1] = 0.5
    weights["b"] = exact
    further = above.copy()
    further.flat[0] = np.nextafter(further.flat[0], np.float16(np.inf))
    moved = above.copy()
    moved.flat[1] = np.nextafter(np.float16(0.5), np.float16(1))  # 0.5 needs no rounding
    for values, allowed in ((below, True), (above, True), (further, False), (moved, False)):
        half = to_half(original, {}, rounded={"b": values.astype(np.float16)}).model
        assert any(np.array_equal(onnx.numpy_helper.to_array(each), values) for each in half.graph.initializer)
        with pytest.raises(VerificationError, match="weight 'b' is not the FP32 graph's"):
            widen_half(half, weights)
        if allowed:
            widened = widen_half(half, weights, ["b"])
            found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in widened.graph.initializer}
            np.testing.assert_array_equal(found["b"], exact)
        else:
            with pytest.raises(VerificationError, match="weight 'b' is not the FP32 graph's"):
                widen_half(half, weights, ["b"])


def _beside(exact: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the FP16 values below and above, each as it is found from the nearest one that is not above, or is."""
    nearest = exact.astype(np.float16)
    up, down = (np.nextafter(nearest, np.float16(side)) for side in (np.inf, -np.inf))
    return (nearest, down), (up, nearest)


def _two_layers() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    weights = {name: rng.standard_normal((4, 3 if name == "a" else 4, 3, 3)).astype(np.float32) for name in "abc"}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a"], ["p"], name="a", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["p"], ["q"], name="relu"),
        onnx.helper.make_node("Conv", ["q", "b"], ["r"], name="b", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Conv", ["r", "c"], ["y"], name="c", pads=[1, 1, 1, 1]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "layers",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 6, 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4, 6, 6])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
