"""Weights are rounded up or down so that errors cancel on a layer's own inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from mtl_deploy.calibration.fp16 import rounding
from mtl_deploy.calibration.fp16.rounding import choose_rounding, round_together

SIDE = 12


def inputs(count: int, seed: int, channels: int = 6) -> np.ndarray:
    """Maps of which channels and neighbours are alike, on an offset, as after a ReLU."""
    random = np.random.default_rng(seed)
    common = random.standard_normal((count, 1, 1, 1)) + 0.3 * random.standard_normal((count, 1, SIDE, SIDE))
    return np.abs(2 + common + 0.3 * random.standard_normal((count, channels, SIDE, SIDE))).astype(np.float32)


def convolution(weight: np.ndarray, bias: np.ndarray | None, **attributes: object) -> onnx.ModelProto:
    tensors = {"w": weight} | ({} if bias is None else {"b": bias})
    nodes = [helper.make_node("Conv", ["x", *tensors], ["y"], name="layer", **attributes)]
    return model(nodes, tensors, weight.shape[1] * int(attributes.get("group", 1)))


def product(op_type: str, weight: np.ndarray, bias: np.ndarray | None, **attributes: object) -> onnx.ModelProto:
    tensors = {"w": weight} | ({} if bias is None else {"b": bias})
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"], name="pool"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flatten"),
        helper.make_node(op_type, ["flat", *tensors], ["y"], name="layer", **attributes),
    ]
    return model(nodes, tensors, 6)


def model(nodes: list[onnx.NodeProto], tensors: Mapping[str, np.ndarray], channels: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", channels, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def output(graph: onnx.ModelProto, x: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """Run a graph with other weights, in float32."""
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    for tensor in other.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    session = onnxruntime.InferenceSession(other.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0].astype(np.float64)


RANDOM = np.random.default_rng(7)
KERNEL = RANDOM.standard_normal((8, 6, 3, 3)).astype(np.float32)
MATRIX = RANDOM.standard_normal((64, 6)).astype(np.float32)
BIAS8, BIAS64 = (RANDOM.uniform(1, 4, size).astype(np.float32) for size in (8, 64))


@pytest.mark.parametrize(
    "graph",
    [
        convolution(KERNEL, None),
        convolution(KERNEL, BIAS8, pads=[1, 1, 1, 1]),
        convolution(KERNEL, BIAS8, pads=[2, 0, 1, 3], strides=[2, 1], dilations=[1, 2]),
        convolution(KERNEL[:, :, :2], BIAS8, strides=[1, 3]),
        product("Gemm", MATRIX, BIAS64, transB=1),
        product("Gemm", np.ascontiguousarray(MATRIX.T), BIAS64),
        product("MatMul", np.ascontiguousarray(MATRIX.T), None),
    ],
    ids=["kernel", "bias", "everything", "flat", "gemm", "gemm-by-column", "matmul"],
)
def test_a_layers_output_is_closer_on_other_images(graph: onnx.ModelProto) -> None:
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    chosen = choose_rounding(graph, ["layer"], [inputs(8, seed) for seed in (1, 2)], threads=1)
    assert chosen.keys() == exact.keys()
    for name, values in chosen.items():
        assert (values.dtype, values.shape) == (np.float16, exact[name].shape)
        step = np.spacing(np.abs(exact[name]).astype(np.float16)).astype(np.float64)
        assert np.all(np.abs(values - exact[name]) <= step)
    other = inputs(16, seed=3)
    truth = output(graph, other, exact)
    nearest = output(graph, other, {name: array.astype(np.float16) for name, array in exact.items()})
    error, usual = (((found - truth) ** 2).mean() for found in (output(graph, other, chosen), nearest))
    assert error < 0.35 * usual


def test_no_single_weight_would_do_better_the_other_way() -> None:
    random = np.random.default_rng(0)
    x = np.abs(random.standard_normal((500, 9)))
    moments = x.T @ x / len(x)
    weights = random.standard_normal((20, 9)).astype(np.float32)
    found = round_together(weights, moments).astype(np.float64)

    def error(values: np.ndarray) -> np.ndarray:
        difference = values - weights
        return np.einsum("ri,ij,rj->r", difference, moments, difference)

    best = error(found)
    nearest = weights.astype(np.float16)
    assert best.sum() < 0.5 * error(nearest.astype(np.float64)).sum()
    for place in range(9):
        other = found.copy()
        for row, weight in enumerate(weights[:, place]):
            half = np.float16(found[row, place])
            other[row, place] = np.nextafter(half, np.float16(np.inf if half < weight else -np.inf))
        assert np.all(error(other) >= best)


def test_what_fp16_holds_exactly_or_only_on_one_side_stays() -> None:
    weights = np.array([[0.5, 65504.0, -65504.0, 65510.0, 1e-9]], np.float32)
    found = round_together(weights, np.ones((5, 5)))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0, :4], [0.5, 65504, -65504, 65504])
    assert found[0, 4] in (0, np.float16(6e-8))


def test_layers_are_left_out_whose_inputs_are_not_those_of_all_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [inputs(4, 1)]
    grouped = convolution(RANDOM.standard_normal((6, 3, 3, 3)).astype(np.float32), None, group=2)
    automatic = convolution(KERNEL, None, auto_pad="SAME_UPPER")
    scaled = product("Gemm", MATRIX, BIAS64, transB=1, alpha=0.5)
    shared = convolution(KERNEL[:6], None, pads=[1, 1, 1, 1])
    shared.graph.node.append(helper.make_node("Conv", ["y", "w"], ["z"], name="again", pads=[1, 1, 1, 1]))
    infinite = convolution(np.where(KERNEL > 2, np.float32(np.inf), KERNEL), None)
    large = convolution(KERNEL, np.full(8, 70000, np.float32))
    for graph in (grouped, automatic, scaled, shared, infinite, large):
        assert choose_rounding(graph, ["layer", "again"], batches) == {}
    plain = convolution(KERNEL, None)
    assert choose_rounding(plain, ["another"], batches) == {}
    assert choose_rounding(plain, ["layer"], batches).keys() == {"w"}
    monkeypatch.setattr(rounding, "LONGEST", KERNEL[0].size - 1)
    assert choose_rounding(plain, ["layer"], batches) == {}


def test_layers_that_do_not_fit_in_memory_together_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first = convolution(KERNEL, BIAS8, pads=[1, 1, 1, 1])
    second = numpy_helper.from_array(RANDOM.standard_normal((5, 8, 1, 1)).astype(np.float32), "v")
    first.graph.initializer.append(second)
    first.graph.node.append(helper.make_node("Conv", ["y", "v"], ["z"], name="second"))
    batches = [inputs(4, 1), inputs(4, 2)]
    together = choose_rounding(first, ["layer", "second"], batches)
    monkeypatch.setattr(rounding, "_AT_ONCE", 1)
    apart = choose_rounding(first, ["layer", "second"], batches)
    assert together.keys() == apart.keys() == {"w", "b", "v"}
    for name, values in together.items():
        np.testing.assert_array_equal(values, apart[name])
