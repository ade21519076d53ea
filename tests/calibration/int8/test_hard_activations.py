"""HardSigmoid and HardSwish on integers: exact but for the rounding of what goes in and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from residual_graph import calibrated, linear

from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.int8.quantize import quantize
from mtl_deploy.calibration.observe.ranges import Range


def network(sketch: Any, *readers: tuple[str, dict[str, float]]) -> onnx.ModelProto:
    """A convolution whose result activations read; each feeds another convolution."""
    graph = sketch(opset=17)
    x = graph.conv(graph.normalised(), (3, 16), name="x", scale=0.6)
    ends = []
    for place_of, (kind, attributes) in enumerate(readers):
        y = graph.node(kind, x, name=f"y{place_of}", **attributes)
        ends.append(graph.conv(y, (16, 8), name=f"z{place_of}"))
    for place_of, end in enumerate(ends):
        flat = graph.node("Flatten", graph.node("GlobalAveragePool", end, name=f"p{place_of}"), name=f"f{place_of}")
        linear(graph, flat, (8, 2), name=f"out{place_of}")
    return graph.model({f"out{place_of}": ("batch", 2) for place_of in range(len(readers))})


def quantized(model: onnx.ModelProto, photos: np.ndarray, **known: Range) -> onnx.ModelProto:
    result = quantize(model, calibrated(model, photos) | known, place(model, "cpu")).model
    onnx.checker.check_model(result, full_check=True)
    return result


def with_outputs(model: onnx.ModelProto, values: str, integers: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name, kind in ((values, onnx.TensorProto.FLOAT), (integers, onnx.TensorProto.UINT8)):
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return copy


def formula(kind: str, x: np.ndarray, alpha: float) -> np.ndarray:
    gate = np.clip(alpha * x + 0.5, 0, 1)
    return x * gate if kind == "HardSwish" else gate


@pytest.mark.parametrize("high", [0.4, 3, 7.5, 60])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("HardSwish", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), ("HardSigmoid", {"alpha": 0.2})],
)
def test_the_integer_form_is_the_formula_of_what_was_rounded(
    sketch: Any, photos: np.ndarray, run: Any, kind: str, attributes: dict[str, float], high: float
) -> None:
    model = network(sketch, (kind, attributes))
    result = quantized(model, photos, x=Range(-8.0, high))
    assert kind not in {node.op_type for node in result.graph.node}
    inner = "y0" if kind == "HardSwish" else "x/gate"
    found = run(with_outputs(result, inner, integers="x/q"), photos, optimize=False)
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in result.graph.initializer}
    x = (found["x/q"].astype(np.float32) - weights["x/zero"]) * weights["x/scale"]
    alpha = 0.2 if attributes.get("alpha") == 0.2 else 1 / 6
    np.testing.assert_allclose(found[inner], formula(kind, x, alpha), rtol=1e-5, atol=1e-6)
    if kind == "HardSwish":
        assert x.min() == pytest.approx(-3, rel=1e-6)  # where the sigmoid becomes 0, and no farther
        assert weights["x/scale"] <= (8 + high) / 255 * 1.01  # no coarser than with the whole range


def test_a_narrow_range_keeps_its_fine_steps(sketch: Any, photos: np.ndarray) -> None:
    result = quantized(network(sketch, ("HardSwish", {})), photos, x=Range(-0.2, 0.3))
    kinds = {node.op_type for node in result.graph.node}
    assert "HardSwish" in kinds
    assert "Clip" not in kinds


@pytest.mark.parametrize(
    "readers",
    [
        [("HardSigmoid", {"alpha": 1 / 6, "beta": 0.4})],
        [("HardSwish", {}), ("Tanh", {})],
        [("HardSwish", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5})],
        [("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), ("HardSigmoid", {"alpha": 0.2, "beta": 0.5})],
    ],
    ids=["not a half at zero", "a reader of another kind", "two hard kinds", "two slopes"],
)
def test_other_readers_of_the_tensor_see_all_of_it(
    sketch: Any, photos: np.ndarray, run: Any, readers: list[tuple[str, dict[str, float]]]
) -> None:
    model = network(sketch, *readers)
    result = quantized(model, photos)
    kinds = {node.op_type for node in result.graph.node}
    assert {kind for kind, _ in readers} <= kinds
    assert "Clip" not in kinds
    expected, found = run(model, photos), run(result, photos)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() < 0.06 * np.abs(values).max(), name


def test_two_readers_of_one_kind_share_the_clip(sketch: Any, photos: np.ndarray, run: Any) -> None:
    model = network(sketch, ("HardSwish", {}), ("HardSwish", {}))
    result = quantized(model, photos)
    assert [node.op_type for node in result.graph.node].count("Clip") == 1
    expected, found = run(model, photos), run(result, photos)
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() < 0.06 * np.abs(values).max(), name


def test_a_layer_in_higher_precision_leaves_its_activation_there(sketch: Any, photos: np.ndarray) -> None:
    model = network(sketch, ("HardSwish", {}))
    placement = place(model, "cpu", ["n_x"])
    kinds = {node.op_type for node in quantize(model, calibrated(model, photos), placement).model.graph.node}
    assert "HardSwish" in kinds
    assert "Clip" not in kinds
