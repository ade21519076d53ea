"""Which parts of a head with one value per pixel become FP16."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.fp16.typing import HalfResult, to_half
from mtl_deploy.calibration.observe.statistics import observe

RNG = np.random.default_rng(4)
IMAGES = [RNG.standard_normal((2, 3, 8, 8)).astype(np.float32) for _ in range(2)]


def graph(bias: float = 0.0, *, classes: bool = True) -> onnx.ModelProto:
    """Return two convolutions and a resize, then class indices or the interpolated values."""
    weights = {
        "w1": RNG.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "w2": RNG.standard_normal((4, 8, 3, 3)).astype(np.float32),
        "b2": np.full(4, bias, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["logits"], "last", pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["logits", "", "scales"], ["large"], "resize", mode="linear"),
    ]
    if classes:
        nodes += [
            helper.make_node("ArgMax", ["large"], ["best"], "argmax", axis=1, keepdims=0),
            helper.make_node("Cast", ["best"], ["number"], "to_float", to=TensorProto.FLOAT),
            helper.make_node("Cast", ["number"], ["map"], "to_uint8", to=TensorProto.UINT8),
        ]
        output = helper.make_tensor_value_info("map", TensorProto.UINT8, ["batch", 16, 16])
    else:
        nodes.append(helper.make_node("Mul", ["large", "large"], ["map"], "square"))
        output = helper.make_tensor_value_info("map", TensorProto.FLOAT, ["batch", 4, 16, 16])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "maps", [image], [output], initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def half(model: onnx.ModelProto) -> HalfResult:
    result = to_half(model, observe(model, IMAGES, threads=1))
    onnx.checker.check_model(result.model, full_check=True)
    return result


def test_what_leads_to_class_indices_alone_is_fp16() -> None:
    assert set(half(graph()).kept) == {"to_float", "to_uint8"}


def test_of_values_the_last_layer_is_fp16_and_what_follows_is_not() -> None:
    kept = half(graph(classes=False)).kept
    assert set(kept) == {"resize", "square"}
    assert set(kept.values()) == {"follows the last weighted layer of a head", "gives an output of the graph"} or set(
        kept.values()
    ) == {"follows the last weighted layer of a head"}


@pytest.mark.parametrize("classes", [False])
def test_values_that_span_few_of_fp16s_steps_keep_their_last_layer_in_fp32(classes: bool) -> None:
    kept = half(graph(bias=3e4, classes=classes)).kept
    assert "rounds" in kept["last"] or "would round" in kept["last"]


def test_emulation_shows_the_rounding_of_resize_and_argmax() -> None:
    model = graph()
    result = half(model)
    emulated = emulate_half(result.model).SerializeToString()
    found, exact = (
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"image": IMAGES[0]})[0]
        for content in (emulated, model.SerializeToString())
    )
    assert found.dtype == np.uint8
    assert 0.98 < np.mean(found == exact) <= 1.0
