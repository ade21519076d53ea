"""The typed FP16 graph: its types, what stays in FP32 and why, its weights and its casts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.calibration.fp16.emulate import emulate_half
from mtl_deploy.calibration.fp16.typing import HalfResult, Overflow, RoundedWeight, to_half
from mtl_deploy.calibration.observe.statistics import TensorStatistics, observe

FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def types(model: onnx.ModelProto) -> dict[str, str]:
    """Check a graph strictly and return the inferred type of each float tensor, weights included."""
    onnx.checker.check_model(model, full_check=True)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # types are to be inferred, not read back
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    stated = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    found = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info)
    }
    found |= {weight.name: weight.data_type for weight in model.graph.initializer}
    assert stated.items() <= found.items()
    assert {output for node in model.graph.node for output in node.output} <= found.keys()
    return {name: FLOATS[kind] for name, kind in found.items() if kind in FLOATS}


def check(result: HalfResult, original: onnx.ModelProto) -> dict[str, str]:
    """Check what holds for every result; return the types."""
    found = types(result.model)
    graph = result.model.graph
    assert [value.SerializeToString() for value in graph.input] == [v.SerializeToString() for v in original.graph.input]
    assert [(value.name, value.type) for value in graph.output] == [(v.name, v.type) for v in original.graph.output]
    produced = {output: node for node in graph.node for output in node.output}
    new = {node.name for node in graph.node} - {node.name for node in original.graph.node}
    for node in graph.node:
        if node.name in new:
            assert node.op_type == "Cast"
            source = produced.get(node.input[0])
            assert source is None or source.op_type != "Cast", f"{source.name} and {node.name} are a chain"
            assert node.input[0] not in {weight.name for weight in graph.initializer}
        elif node.name in result.kept:
            assert "fp16" not in {found.get(name) for name in (*node.input, *node.output)}
        else:
            assert "fp32" not in {found.get(name) for name in node.output}
    casts = Counter((node.input[0], node.attribute[0].i) for node in graph.node if node.name in new)
    assert set(casts.values()) <= {1}
    used = {name for node in graph.node for name in node.input}
    assert {weight.name for weight in graph.initializer} <= used
    json.dumps(result.to_dict(), allow_nan=False)
    return found


def test_every_tensor_of_a_deployed_graph_has_the_type_it_should(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head()
    result = to_half(model, observe(model, [photos]))
    found = check(result, model)
    half = {name for name, kind in found.items() if kind == "fp16"}
    assert half == {
        "normal/fp16",
        *("stem", "stem.weight", "stem.bias", "stem_relu", "body", "body.weight", "body.bias", "sum", "sum_relu"),
        *("pool", "features"),
        *(f"{task}_{what}" for task in ("age", "gender", "race") for what in ("hidden", "hidden.weight", "relu")),
    }
    assert {name: reason.split(":")[0] for name, reason in result.kept.items()} == {
        **dict.fromkeys(("n_pixels", "n_scaled", "n_normal"), "comes before any weighted layer"),
        "n_planes": "comes before any weighted layer",
        **dict.fromkeys(("n_age_raw", "n_gender_raw", "n_race_raw"), "last weighted layer of a head"),
        **dict.fromkeys(("n_age", "n_gender", "n_race"), "follows the last weighted layer of a head"),
    }
    assert (result.overflows, result.converted) == ((), 13)


@pytest.mark.parametrize("opset", [13, 17, 18, 21, 24])
def test_results_are_close_at_every_opset_and_batch(multi_head: Any, run: Any, photos: np.ndarray, opset: int) -> None:
    model = multi_head(opset)
    result = to_half(model, observe(model, [photos]))
    check(result, model)
    for batch in (photos[:1], photos[:3]):
        expected = run(model, batch)
        for graph in (result.model, emulate_half(result.model)):
            for name, values in run(graph, batch).items():
                assert values.dtype == np.float32
                np.testing.assert_allclose(values, expected[name], rtol=5e-3, atol=5e-3 * np.abs(expected[name]).max())


def test_the_original_is_untouched_and_its_metadata_travels(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head()
    helper.set_model_props(model, {"mtl_deploy": "{}"})
    before = model.SerializeToString(deterministic=True)
    result = to_half(model, observe(model, [photos]))
    assert model.SerializeToString(deterministic=True) == before
    assert [(entry.key, entry.value) for entry in result.model.metadata_props] == [("mtl_deploy", "{}")]


def test_a_file_is_half_as_large(sketch: Any) -> None:
    graph = sketch(image="float")
    graph.gemm(
        graph.features(graph.conv(graph.conv("image", (3, 128), name="a"), (128, 128), name="b")), (128, 2), name="y"
    )
    model = graph.model({"y": ("batch", 2)})
    assert to_half(model, {}).model.ByteSize() == pytest.approx(model.ByteSize() / 2, rel=0.02)


def overflowing(sketch: Any, reach: float) -> onnx.ModelProto:
    """A network whose second layer reaches about ``reach`` and whose third brings it back."""
    graph = sketch()
    first = graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="first"), name="first_relu")
    large = graph.node("Relu", graph.conv(first, (8, 8), name="large", scale=reach / 10), name="large_relu")
    small = graph.node("Relu", graph.conv(large, (8, 8), name="small", scale=20 / reach), name="small_relu")
    last = graph.node("Relu", graph.conv(small, (8, 8), name="last"), name="last_relu")
    graph.gemm(graph.features(last), (8, 1), name="age")
    return graph.model({"age": ("batch", 1)})


def test_what_overflows_is_found_named_and_kept(sketch: Any, run: Any, photos: np.ndarray) -> None:
    model = overflowing(sketch, 1e5)
    seen = observe(model, [photos])
    result = to_half(model, seen)
    found = check(result, model)
    assert result.overflows == (
        Overflow("large", "n_large", "activation", seen["large"].absmax),
        Overflow("large_relu", "n_large_relu", "activation", seen["large_relu"].absmax),
    )
    assert seen["large"].absmax > 65504
    assert (
        result.kept["n_large"]
        == result.kept["n_large_relu"]
        == f"activation large overflows FP16 ({seen['large'].absmax:.4g})"
    )
    assert "large_relu overflows" in result.kept["n_small"]
    assert {found[name] for name in ("first", "first_relu", "small_relu", "last")} == {"fp16"}
    assert {found[name] for name in ("large", "large.weight", "large_relu", "small", "small.weight")} == {"fp32"}
    assert f"activation large overflows ({seen['large'].absmax:.4g})" in result.description
    expected = run(model, photos)["age"]
    np.testing.assert_allclose(run(emulate_half(result.model), photos)["age"], expected, rtol=1e-2)


def test_without_statistics_the_same_network_breaks(sketch: Any, run: Any, photos: np.ndarray) -> None:
    blind = to_half(overflowing(sketch, 1e5), {})
    assert blind.overflows == ()
    assert not np.isfinite(run(emulate_half(blind.model), photos)["age"]).all()


def test_there_is_a_margin_for_images_not_seen(sketch: Any, photos: np.ndarray) -> None:
    model = overflowing(sketch, 1e4)
    seen = observe(model, [photos])
    scale = 40000 / seen["large"].absmax
    near = overflowing(sketch, 1e4 * scale)
    result = to_half(near, observe(near, [photos]))
    assert [overflow.tensor for overflow in result.overflows][:1] == ["large"]
    assert 32752 < result.overflows[0].absmax < 65504
    assert to_half(model, seen).overflows == () or seen["large"].absmax > 32752


def test_a_value_that_is_not_finite_is_named(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    log = graph.node("Log", graph.conv("image", (3, 3), name="a", scale=0), name="log")
    graph.gemm(graph.features(graph.conv(log, (3, 3), name="b")), (3, 1), name="y")
    model = graph.model({"y": ("batch", 1)})
    result = to_half(model, observe(model, [np.full((1, 3, 4, 4), -1, np.float32)]))
    check(result, model)
    assert Overflow("log", "n_log", "activation", np.inf) in result.overflows
    assert result.to_dict()["overflows"][0]["absmax"] is None


@pytest.mark.parametrize(
    ("value", "kept"),
    [(7e4, "overflows"), (6.5e4, ""), (-7e4, "overflows"), (np.inf, ""), (0.0, ""), (1e-5, "vanishes"), (7e-5, "")],
    ids=str,
)
def test_a_weight_out_of_range_keeps_its_node(sketch: Any, value: float, kept: str) -> None:
    graph = sketch(image="float", size=4)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[1, 1] = value
    middle = graph.node("Conv", graph.conv("image", (3, 3), name="a"), graph.weight("kernel", kernel), name="middle")
    graph.gemm(graph.features(middle), (3, 1), name="y")
    model = graph.model({"y": ("batch", 1)})
    result = to_half(model, {})
    found = check(result, model)
    assert kept in result.kept.get("n_middle", "")
    assert found["kernel"] == ("fp32" if kept else "fp16")
    expected = (Overflow("kernel", "n_middle", "weight", 7e4),) if kept == "overflows" else ()
    assert result.overflows == expected


def test_a_small_bias_does_not_keep_its_layer(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    middle = graph.conv(graph.conv("image", (3, 3), name="a"), (3, 3), name="middle")
    graph.weights["middle.bias"] = np.full(3, 1e-6, np.float32)
    graph.gemm(graph.features(middle), (3, 1), name="y")
    model = graph.model({"y": ("batch", 1)})
    assert "n_middle" not in to_half(model, {}).kept


@pytest.mark.parametrize(
    ("output", "kept"), [(1.0, False), (1e-4, True)], ids=["beside ones", "beside as small values"]
)
def test_a_bias_that_becomes_zero_keeps_its_layer_only_where_it_counts(sketch: Any, output: float, kept: bool) -> None:
    """BatchNorm that is folded leaves biases of a hundred-millionth where a channel's mean is zero but for rounding."""
    graph = sketch(image="float", size=4)
    middle = graph.conv(graph.conv("image", (3, 3), name="a"), (3, 3), name="middle")
    graph.weights["middle.bias"] = np.full(3, 2e-8, np.float32)
    graph.gemm(graph.features(middle), (3, 1), name="y")
    model = graph.model({"y": ("batch", 1)})
    reason = to_half(model, {middle: TensorStatistics(-output, output)}).kept.get("n_middle", "")
    assert ("vanishes" in reason) == kept


def test_rounded_weights_are_counted(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    graph.conv("image", (3, 2), name="a")
    kernel = np.full(54, 0.5, np.float32)
    kernel[:3] = 1e-8, -2e-8, 0
    kernel[3:5] = 1e-5, -6e-5
    graph.weights["a.weight"] = kernel.reshape(2, 3, 3, 3)
    graph.gemm(graph.features(graph.conv("a", (2, 2), name="b")), (2, 1), name="y")
    result = to_half(graph.model({"y": ("batch", 1)}), {})
    assert result.weights[0] == RoundedWeight("a.weight", 54, zeroed=2, subnormal=2)
    assert result.to_dict()["weights"]["zeroed"] == 2


def test_a_weight_used_in_both_precisions_is_stored_in_both(sketch: Any, run: Any) -> None:
    graph = sketch(image="float", size=4)
    shared = graph.conv("image", (3, 3), name="a")
    for name in ("b", "c"):
        shared = graph.node("Conv", shared, "a.weight", "a.bias", name=name, pads=[1, 1, 1, 1])
    model = graph.model({"c": ("batch", 3, 4, 4)})
    result = to_half(model, {})
    found = check(result, model)
    assert list(result.kept) == ["n_c"]
    assert {name: found[name] for name in ("a.weight", "a.weight/fp16", "a.bias", "a.bias/fp16")} == {
        "a.weight": "fp32",
        "a.weight/fp16": "fp16",
        "a.bias": "fp32",
        "a.bias/fp16": "fp16",
    }
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(emulate_half(result.model), image)["c"], run(model, image)["c"], atol=0.02)


def test_clip_and_resize_keep_the_types_that_onnx_wants(sketch: Any, run: Any) -> None:
    graph = sketch(image="float", size=4)
    bounds = graph.weight("zero", np.float32(0)), graph.weight("six", np.float32(6))
    clipped = graph.node("Clip", graph.conv("image", (3, 4), name="a"), *bounds, name="relu6")
    scales = graph.weight("scales", np.array([1, 1, 2, 2], np.float32))
    larger = graph.node("Resize", clipped, "", scales, name="larger", mode="linear")
    graph.conv(larger, (4, 2), name="y")
    model = graph.model({"y": ("batch", 2, 8, 8)})
    result = to_half(model, {})
    found = check(result, model)
    assert [found[name] for name in ("zero", "six", "relu6", "larger", "scales")] == ["fp16"] * 4 + ["fp32"]
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(emulate_half(result.model), image)["y"], run(model, image)["y"], atol=0.02)


@pytest.mark.parametrize(
    ("size", "reach", "kept"),
    [(8, 10.0, ""), (64, 10.0, "sums 4096 values"), (8, 900.0, "sums 64 values of up to 900")],
    ids=["short", "long", "large"],
)
def test_a_sum_stays_in_fp32_where_it_is_long_or_large(sketch: Any, size: int, reach: float, kept: str) -> None:
    graph = sketch(image="float", size=size)
    last = graph.gemm(
        graph.gemm(graph.features(graph.conv("image", (3, 4), name="a")), (4, 4), name="b"), (4, 1), name="y"
    )
    model = graph.model({last: ("batch", 1)})
    seen = observe(model, [np.zeros((1, 3, size, size), np.float32)])
    seen["a"] = type(seen["a"])(0.0, reach)
    result = to_half(model, seen)
    check(result, model)
    assert result.kept.get("n_pool", "") == kept


def test_sensitive_operators_stay_and_what_lies_between_them(sketch: Any, run: Any) -> None:
    graph = sketch(image="float", size=4)
    data = graph.conv("image", (3, 4), name="a")
    squares = graph.node("Pow", data, graph.weight("two", np.float32(2)), name="squares")
    mean = graph.node("ReduceMean", squares, graph.weight("axes", np.array([1])), name="mean")
    shifted = graph.node("Add", mean, graph.weight("epsilon", np.float32(1e-5)), name="shifted")
    inverse = graph.node("Reciprocal", graph.node("Sqrt", shifted, name="root"), name="inverse")
    attention = graph.node("Softmax", graph.node("Mul", data, inverse, name="even"), name="attention", axis=1)
    graph.conv(graph.conv(attention, (4, 4), name="b"), (4, 1), name="y")
    model = graph.model({"y": ("batch", 1, 4, 4)})
    result = to_half(model, {})
    found = check(result, model)
    reasons = {
        name: result.kept.get(f"n_{name}")
        for name in ("squares", "mean", "shifted", "root", "inverse", "even", "attention")
    }
    between = "lies between nodes that stay in FP32"
    assert reasons == {
        **{
            name: f"{op} loses accuracy or range in FP16"
            for name, op in (("squares", "Pow"), ("inverse", "Reciprocal"), ("attention", "Softmax"))
        },
        **dict.fromkeys(("mean", "shifted", "root"), between),
        "even": None,
    }
    assert found["epsilon"] == "fp32"
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(emulate_half(result.model), image)["y"], run(model, image)["y"], atol=0.02)


def test_pixels_that_a_layer_reads_itself_are_cast_once(sketch: Any) -> None:
    graph = sketch(size=4)
    graph.node("Transpose", "image", name="planes", perm=[0, 3, 1, 2])
    graph.conv(
        graph.conv(graph.node("Cast", "planes", name="pixels", to=TensorProto.FLOAT), (3, 4), name="a"),
        (4, 1),
        name="y",
    )
    model = graph.model({"y": ("batch", 1, 4, 4)})
    result = to_half(model, {})
    check(result, model)
    assert [node.op_type for node in result.model.graph.node] == ["Transpose", "Cast", "Conv", "Cast", "Conv"]


def test_constants_inside_nodes_and_nodes_without_names_are_handled(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    half = numpy_helper.from_array(np.float32(0.5), "half")
    graph.node("Constant", name="half", value=half)
    graph.conv(graph.node("Mul", graph.conv("image", (3, 4), name="a"), "half", name="m"), (4, 1), name="y")
    model = graph.model({"y": ("batch", 1, 4, 4)})
    for node in model.graph.node:
        node.name = ""
    result = to_half(model, {})
    found = types(result.model)
    assert (found["half"], found["m"]) == ("fp16", "fp16")
    assert len(result.kept) == 1
    assert all(result.kept)


def test_an_operator_of_a_plugin_stays_in_fp32(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    plugin = graph.node("Swish", graph.conv("image", (3, 4), name="a"), name="plugin", domain="com.example")
    graph.nodes.append(helper.make_node("Conv", [plugin, "b.weight"], ["b"], name="n_b"))
    graph.weight("b.weight", np.ones((4, 4, 1, 1), np.float32))
    graph.conv("b", (4, 1), name="y")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, 4, 4]) for name in ("plugin",)]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "g",
            graph.inputs,
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, 4, 4])],
            [numpy_helper.from_array(value, name) for name, value in graph.weights.items()],
            value_info=values,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)],
    )
    result = to_half(model, {})
    assert result.kept["n_plugin"] == "Swish has no FP16 form"
    inputs = {node.name: list(node.input) for node in result.model.graph.node}
    assert inputs["n_plugin"] == ["a/fp32"]
    assert inputs["n_b"] == ["plugin/fp16", "b.weight"]


def test_what_a_subgraph_reads_stays_in_fp32(sketch: Any, run: Any) -> None:
    graph = sketch(image="float", size=4)
    outer = graph.conv("image", (3, 4), name="a")
    value = helper.make_tensor_value_info("branch", TensorProto.FLOAT, None)
    branches = {
        key: helper.make_graph([helper.make_node(op, [outer], ["branch"])], key, [], [value])
        for key, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    graph.node("If", graph.weight("yes", np.array(True)), name="chosen", **branches)
    graph.conv(graph.conv("chosen", (4, 4), name="b"), (4, 1), name="y")
    model = graph.model({"y": ("batch", 1, 4, 4)})
    result = to_half(model, {})
    onnx.checker.check_model(result.model, full_check=True)
    assert "n_a" in result.kept
    image = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(run(result.model, image)["y"], run(model, image)["y"], atol=0.02)


LAYERS = st.lists(
    st.sampled_from(
        ["conv", "relu", "clip", "softmax", "add", "norm", "pool", "transpose", "concat", "sigmoid", "tap"]
    ),
    min_size=1,
    max_size=10,
)


@given(layers=LAYERS)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_stack_of_layers_gives_a_sound_graph(sketch: Any, run: Any, layers: list[str]) -> None:
    graph = sketch(image="float", size=4)
    data = skip = graph.conv("image", (3, 4), name="stem")
    outputs: dict[str, tuple[int | str, ...]] = {}
    for i, layer in enumerate(layers):
        name = f"l{i}"
        if layer == "conv":
            skip, data = data, graph.conv(data, (4, 4), name=name, scale=0.1)
        elif layer == "relu":
            data = graph.node("Relu", data, name=name)
        elif layer == "clip":
            data = graph.node("Clip", data, graph.weight(f"{name}.low", np.float32(-1)), name=name)
        elif layer == "softmax":
            data = graph.node("Softmax", data, name=name, axis=1)
        elif layer == "add":
            data = graph.node("Add", data, skip, name=name)
        elif layer == "norm":
            ones = [graph.weight(f"{name}.{what}", np.ones(4, np.float32)) for what in ("scale", "bias")]
            data = graph.node("InstanceNormalization", data, *ones, name=name)
        elif layer == "pool":
            pooled = graph.node("GlobalAveragePool", data, name=f"{name}p")
            data = graph.node("Mul", data, pooled, name=name)
        elif layer == "transpose":
            data = graph.node("Transpose", data, name=name, perm=[0, 1, 3, 2])
        elif layer == "concat":
            graph.node("Split", data, name=name, outputs=[f"{name}a", f"{name}b"], axis=1, num_outputs=2)
            data = graph.node("Concat", f"{name}b", f"{name}a", name=f"{name}c", axis=1)
        elif layer == "sigmoid":
            data = graph.node("Sigmoid", data, name=name)
        else:
            outputs[data] = ("batch", 4, 4, 4)
    outputs[graph.conv(data, (4, 4), name="last")] = ("batch", 4, 4, 4)
    model = graph.model(outputs)
    image = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    result = to_half(model, observe(model, [image]))
    check(result, model)
    expected = run(model, image)
    for name, values in run(emulate_half(result.model), image).items():
        np.testing.assert_allclose(values, expected[name], rtol=0.02, atol=0.05)


def test_attention_stays_in_fp32_since_nobody_sees_its_products(sketch: Any, run: Any, photos: np.ndarray) -> None:
    """Of operands that FP16 holds they overflow it, and the softmax within makes NaN of that."""
    graph = sketch(opset=23)
    stem = graph.conv(graph.normalised(), (3, 8), name="stem", scale=2)
    parts = [graph.conv(stem, (8, 8), name=name, scale=2) for name in ("query", "key", "value")]
    mixed = graph.node("Attention", *parts, name="mixed")  # eight heads, one position per row
    features = graph.features(graph.conv(mixed, (8, 8), name="body"))
    model = graph.model({graph.gemm(features, (8, 2), name="out"): ("batch", 2)})
    seen = observe(model, [photos])
    result = to_half(model, seen)
    assert "n_mixed" in result.kept
    assert "n_query" not in result.kept
    assert max(seen[name].absmax for name in ("query", "key", "value")) < 1000
    found, expected = run(result.model, photos)["out"], run(model, photos)["out"]
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
