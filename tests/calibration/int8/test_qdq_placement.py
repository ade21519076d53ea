"""Where Q/DQ go, held on the graphs that come out, in both styles."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from residual_graph import WEIGHTED, Reading, calibrated, linear, residual_graph

from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.int8.quantize import quantize
from mtl_deploy.runtime.errors import OptionError

LAST = {"n_age_raw", "n_gender_raw"}
INNER = [f"n_{name}" for name in WEIGHTED if f"n_{name}" not in LAST]


@pytest.fixture(scope="module")
def model(sketch: Any) -> onnx.ModelProto:
    return residual_graph(sketch)


def reading(model: onnx.ModelProto, photos: np.ndarray, style: str, **options: Any) -> Reading:
    placement = place(model, style, **options)
    return Reading(quantize(model, calibrated(model, photos), placement).model)


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_every_weighted_layer_but_the_last_of_each_head_reads_integers(
    model: onnx.ModelProto, photos: np.ndarray, style: str
) -> None:
    placement = place(model, style)
    assert list(placement.nodes) == INNER
    assert set(placement.kept) == LAST
    assert all("last weighted layer" in reason for reason in placement.kept.values())
    graph = reading(model, photos, style)
    for name in INNER:
        assert graph.reads(name, 0) == graph.reads(name, 1) == "DequantizeLinear"
    for name in LAST:
        assert graph.reads(name, 1) == graph.reads(name, 2) == "weight"


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_last_layers_become_integers_when_asked(model: onnx.ModelProto, style: str) -> None:
    placement = place(model, style, heads=True)
    assert list(placement.nodes) == [f"n_{name}" for name in WEIGHTED]
    assert not placement.kept


def test_a_residual_sum_has_q_dq_on_its_skip_branch_alone(model: onnx.ModelProto, photos: np.ndarray) -> None:
    graph = reading(model, photos, "tensorrt")
    assert graph.reads("n_a_sum", 0) == "Conv"
    assert graph.behind("n_a_sum", 1) == "max"
    assert graph.behind("n_b_sum", 0) == "b_down"  # both sides end in a convolution: this one is the shorter branch
    assert graph.reads("n_b_sum", 1) == "Conv"


def test_the_skip_branch_shares_the_q_dq_of_the_layer_that_reads_the_same_tensor(
    model: onnx.ModelProto, photos: np.ndarray
) -> None:
    graph = reading(model, photos, "tensorrt")
    assert graph.nodes["n_a_sum"].input[1] == graph.nodes["n_a1"].input[0]


def test_nothing_stands_between_convolution_relu_and_sum(model: onnx.ModelProto, photos: np.ndarray) -> None:
    graph = reading(model, photos, "tensorrt")
    for name in ("n_stem_relu", "n_a1_relu", "n_b1_relu"):
        assert graph.reads(name, 0) == "Conv"
    for name in ("n_a_relu", "n_b_relu"):
        assert graph.reads(name, 0) == "Add"
    assert graph.reads("n_max", 0) == "Relu"  # the builder moves the Q behind the pool in front of it
    assert graph.reads("n_pool", 0) == "Relu"
    assert graph.reads("n_age_relu", 0) == "Gemm"


def test_a_sum_keeps_its_types_when_its_convolution_does(model: onnx.ModelProto, photos: np.ndarray) -> None:
    graph = reading(model, photos, "tensorrt", skip=["n_a2", "n_b2"])
    assert graph.reads("n_a_sum", 1) == "MaxPool"
    assert {graph.reads("n_b_sum", 0), graph.reads("n_b_sum", 1)} == {"Conv"}


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
def test_skipped_layers_keep_their_weights(model: onnx.ModelProto, photos: np.ndarray, style: str) -> None:
    placement = place(model, style, skip=["n_b1"])
    assert placement.kept["n_b1"] == "left in higher precision on request"
    graph = reading(model, photos, style, skip=["n_b1"])
    assert graph.reads("n_b1", 1) == graph.reads("n_b1", 2) == "weight"
    assert graph.reads("n_b2", 0) == "DequantizeLinear"


def test_in_the_cpu_style_integers_go_from_one_end_to_the_other(model: onnx.ModelProto, photos: np.ndarray) -> None:
    graph = reading(model, photos, "cpu")
    for name, inputs in {"n_a_sum": 2, "n_b_sum": 2, "n_max": 1, "n_pool": 1, "n_features": 1}.items():
        assert {graph.reads(name, position) for position in range(inputs)} == {"DequantizeLinear"}
    for name in ("n_stem_relu", "n_a1_relu", "n_a_relu", "n_age_relu"):
        assert graph.reads(name, 0) in ("Conv", "Add", "Gemm")
    assert graph.behind("n_age_raw", 0) == "age_relu"  # ONNX Runtime takes the ReLU into the integer kernel only then


def test_in_the_cpu_style_moved_values_keep_their_range(model: onnx.ModelProto, photos: np.ndarray) -> None:
    graph = reading(model, photos, "cpu")
    weights = graph.weights
    assert weights["max/scale"] == weights["stem_relu/scale"]
    assert weights["features/scale"] == weights["pool/scale"]
    assert "max" not in place(model, "cpu").tensors


def test_what_feeds_nothing_but_fp32_stays_fp32(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head(17)
    skip = ["n_age_hidden", "n_gender_hidden", "n_race_hidden"]
    graph = Reading(quantize(model, calibrated(model, photos), place(model, "cpu", skip)).model)
    assert graph.reads("n_pool", 0) == "Relu"
    assert {graph.reads(name, 0) for name in skip} == {"Flatten"}


def test_layers_without_constant_weights_are_kept_and_the_reason_given(sketch: Any) -> None:
    graph = sketch(size=4)
    features = graph.features(graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="stem"), name="relu"))
    turned = graph.node("Transpose", features, name="turned", perm=[1, 0])
    product = graph.node("MatMul", features, turned, name="product")
    scaled = graph.node("Gemm", features, graph.weight("w", np.ones((8, 8), np.float32)), name="half", alpha=0.5)
    last = linear(graph, graph.node("MatMul", product, scaled, name="mix"), (8, 2), name="last")
    model = graph.model({last: ("batch", 2)})
    reasons = place(model, "cpu").kept
    assert reasons["n_product"] == "its second operand is not a constant weight"
    assert reasons["n_half"] == "it scales its product or its bias"
    assert "n_half" in place(model, "tensorrt").nodes


def test_a_style_or_a_layer_that_does_not_exist_is_an_error(model: onnx.ModelProto) -> None:
    with pytest.raises(OptionError, match=r"'tpu'.*tensorrt, cpu"):
        place(model, "tpu")
    with pytest.raises(OptionError, match="'nowhere' is not a weighted layer"):
        place(model, "cpu", skip=["nowhere"])
