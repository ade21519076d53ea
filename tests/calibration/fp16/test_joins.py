"""Which operations of a graph join branches, and what it does to keep them in FP32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from residual_graph import residual_graph

from mtl_deploy.calibration.fp16.typing import to_half


def test_sums_of_blocks_are_found_with_what_leads_from_layer_to_layer_through_them(sketch: Any) -> None:
    found = to_half(residual_graph(sketch), {})
    joins = {"n_stem_relu", "n_max", "n_a_sum", "n_a_relu", "n_b_sum", "n_b_relu", "n_pool", "n_features"}
    assert set(found.joins) == joins
    assert set(found.joins) <= set(found.half)
    assert {"n_a1_relu", "n_b1_relu", "n_age_relu"}.isdisjoint(found.joins)  # each between two layers


def test_gates_are_joins_and_what_multiplies_by_a_weight_is_none(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    first = graph.conv("image", (3, 3), name="a")
    scaled = graph.node("Mul", first, graph.weight("factor", np.float32(2)), name="scaled")
    second = graph.conv(scaled, (3, 3), name="b")
    gated = graph.node("Mul", second, graph.node("HardSigmoid", second, name="gate"), name="gated")
    graph.conv(gated, (3, 2), name="y")
    found = to_half(graph.model({"y": ("batch", 2, 4, 4)}), {})
    assert found.joins == ("n_gate", "n_gated")


def test_a_graph_without_branches_has_none(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    hidden = graph.node("Relu", graph.conv("image", (3, 3), name="a"), name="relu")
    graph.conv(hidden, (3, 2), name="y")
    assert to_half(graph.model({"y": ("batch", 2, 4, 4)}), {}).joins == ()


def test_kept_in_fp32_they_cost_casts_and_no_layer(sketch: Any) -> None:
    model = residual_graph(sketch)
    plain = to_half(model, {})
    kept = to_half(model, {}, dict.fromkeys(plain.joins, "a reason"))
    onnx.checker.check_model(kept.model, full_check=True)
    assert set(plain.half) - set(kept.half) == set(plain.joins)
    types = {value.name: value.type.tensor_type.elem_type for value in kept.model.graph.value_info}
    assert {types[name] for name in ("a_sum", "a_relu", "b_sum", "b_relu")} == {onnx.TensorProto.FLOAT}
    assert {types[name] for name in ("a1", "a2", "b1", "b2", "a1_relu")} == {onnx.TensorProto.FLOAT16}
