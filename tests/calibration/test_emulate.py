"""The emulation rounds as FP16 does, where ONNX Runtime on a CPU does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from mtl_deploy.calibration.emulate import emulate_half
from mtl_deploy.calibration.half import to_half


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
