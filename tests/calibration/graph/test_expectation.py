"""A head that ends in a fixed expectation keeps its logits' layer in high precision; a learned product is no expectation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from mtl_deploy.calibration.fp16.typing import to_half
from mtl_deploy.calibration.graph.expectation import is_expectation
from mtl_deploy.calibration.graph.typed import prepared
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.observe.statistics import observe

BINS = 66
VALUES = np.arange(BINS, dtype=np.float32)


def dex(graph: Any, logits: str) -> str:
    """HopeNet's and DEX's: products and a sum, scaled and shifted after."""
    products = graph.node("Mul", softmax(graph, logits), graph.weight("bins", VALUES), name="products")
    summed = graph.node("ReduceSum", products, graph.weight("axes", np.array([1])), name="summed", keepdims=1)
    return scaled(graph, summed)


def matmul(graph: Any, logits: str) -> str:
    product = graph.node("MatMul", softmax(graph, logits), graph.weight("bins", VALUES[:, None]), name="product")
    return scaled(graph, product)


def vector(graph: Any, logits: str) -> str:
    """``probabilities @ bins``, which gives a vector."""
    product = graph.node("MatMul", softmax(graph, logits), graph.weight("bins", VALUES), name="product")
    shape = graph.weight("shape", np.array([-1, 1]))
    return scaled(graph, graph.node("Reshape", product, shape, name="column"))


def gemm(graph: Any, logits: str) -> str:
    """A linear layer with frozen weights whose values are logarithmic, and a bias."""
    bins = np.geomspace(0.1, 80, BINS).astype(np.float32)[None]
    offset = graph.weight("offset", np.array([-99], np.float32))
    inputs = softmax(graph, logits), graph.weight("bins", bins), offset
    return str(graph.node("Gemm", *inputs, name="product", transB=1))


def left(graph: Any, logits: str) -> str:
    """Bins from the left, over probabilities on end."""
    on_end = graph.node("Transpose", softmax(graph, logits), name="on_end", perm=[1, 0])
    product = graph.node("MatMul", graph.weight("bins", VALUES[None]), on_end, name="product")
    return str(graph.node("Transpose", product, name="column", perm=[1, 0]))


def focal(graph: Any, logits: str) -> str:
    """Distribution focal loss, as YOLOv8 has it: a 1 by 1 convolution over bins, for several sides at once."""
    apart = graph.node("Reshape", logits, graph.weight("sides", np.array([0, 6, 11, 1])), name="apart")
    moved = graph.node("Transpose", apart, name="moved", perm=[0, 2, 1, 3])
    likely = graph.node("Softmax", moved, name="likely", axis=1)
    kernel = graph.weight("bins", np.arange(11, dtype=np.float32).reshape(1, 11, 1, 1))
    convolved = graph.node("Conv", likely, kernel, name="product")
    return str(graph.node("Reshape", convolved, graph.weight("flat", np.array([0, 6])), name="edges"))


def coordinates(graph: Any, logits: str) -> str:
    """Integral regression: both coordinates of a heatmap of 6 by 11, flattened."""
    rows, columns = np.divmod(np.arange(BINS), 11)
    grid = np.stack([columns / 10 * 2 - 1, rows / 5 * 2 - 1], axis=1).astype(np.float32)
    return str(graph.node("MatMul", softmax(graph, logits), graph.weight("bins", grid), name="product"))


def written_out(graph: Any, logits: str) -> str:
    """A softmax of single operators, as old exporters write it."""
    axes = graph.weight("last", np.array([1]))
    largest = graph.node("ReduceMax", logits, axes, name="largest", keepdims=1)
    powers = graph.node("Exp", graph.node("Sub", logits, largest, name="below"), name="powers")
    total = graph.node("ReduceSum", powers, axes, name="total", keepdims=1)
    likely = graph.node("Div", powers, total, name="likely")
    return str(graph.node("MatMul", likely, graph.weight("bins", VALUES[:, None]), name="product"))


EXPECTATIONS = [dex, matmul, vector, gemm, left, focal, coordinates, written_out]


def learned(graph: Any, logits: str) -> str:
    """A mixture of learned values, one per output."""
    values = np.random.default_rng(7).standard_normal((BINS, 1)).astype(np.float32)
    return str(graph.node("MatMul", softmax(graph, logits), graph.weight("values", values), name="product"))


def attention(graph: Any, logits: str) -> str:
    """Attention over a learned memory, and a learned layer that happens to look at nothing but probabilities."""
    values = np.random.default_rng(8).standard_normal((BINS, 8)).astype(np.float32)
    read = graph.node("MatMul", softmax(graph, logits), graph.weight("memory", values), name="read")
    return str(graph.gemm(read, (8, 1), name="product"))


def not_probabilities(graph: Any, logits: str) -> str:
    """Even weights, but over a ReLU: a layer like another."""
    positive = graph.node("Relu", logits, name="positive")
    return str(graph.node("MatMul", positive, graph.weight("even", VALUES[:, None]), name="product"))


LAYERS = [learned, attention, not_probabilities]


def softmax(graph: Any, logits: str) -> str:
    return str(graph.node("Softmax", logits, name="likely", axis=1))


def scaled(graph: Any, value: str) -> str:
    return str(
        graph.node(
            "Sub",
            graph.node("Mul", value, graph.weight("factor", np.float32(3)), name="threefold"),
            graph.weight("offset", np.float32(99)),
            name="shifted",
        )
    )


def network(sketch: Any, head: Callable[[Any, str], str]) -> onnx.ModelProto:
    graph = sketch()
    stem = graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="stem"), name="stem_relu")
    body = graph.node("Relu", graph.conv(stem, (8, 8), name="body"), name="body_relu")
    hidden = graph.node("Relu", graph.gemm(graph.features(body), (8, 16), name="hidden"), name="hidden_relu")
    value = head(graph, graph.gemm(hidden, (16, BINS), name="logits", scale=1.0))
    graph.node("Identity", value, name="age")
    return graph.model({"age": ("batch", "values")})


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
@pytest.mark.parametrize("head", EXPECTATIONS, ids=lambda head: head.__name__)
def test_int8_keeps_the_logits_layer_of_an_expectation(sketch: Any, head: Any, style: str) -> None:
    placement = place(network(sketch, head), style)
    assert placement.nodes == ("n_stem", "n_body", "n_hidden")
    assert placement.kept["n_logits"].startswith("last weighted layer of a head")
    assert {"n_logits"} <= set(placement.kept) <= {"n_logits", "n_product"}
    assert "n_product" not in place(network(sketch, head), style, heads=True).nodes


@pytest.mark.parametrize("head", EXPECTATIONS, ids=lambda head: head.__name__)
def test_fp16_keeps_the_logits_layer_of_an_expectation_and_what_follows(
    sketch: Any, run: Any, photos: np.ndarray, head: Any
) -> None:
    model = network(sketch, head)
    half = to_half(model, observe(model, [photos]))
    assert half.kept["n_logits"].startswith("last weighted layer of a head")
    assert "n_hidden" not in half.kept
    products = {"n_product", "n_products"} & {node.name for node in model.graph.node}
    assert all(half.kept[name].startswith("follows the last weighted layer") for name in products)
    exact, found = (run(each, photos)["age"] for each in (model, half.model))
    np.testing.assert_allclose(found, exact, rtol=0, atol=2e-3 * max(float(np.ptp(exact)), float(np.abs(exact).max())))


@pytest.mark.parametrize("style", ["tensorrt", "cpu"])
@pytest.mark.parametrize("head", LAYERS, ids=lambda head: head.__name__)
def test_a_learned_product_is_the_last_layer_itself(sketch: Any, head: Any, style: str) -> None:
    model = network(sketch, head)
    placement = place(model, style)
    assert "n_logits" in placement.nodes
    assert placement.kept["n_product"].startswith("last weighted layer of a head")
    assert not any(is_expectation(node) for node in prepared(model).graph)


def test_fp16_takes_no_learned_product_for_an_expectation(sketch: Any, photos: np.ndarray) -> None:
    for head in LAYERS:
        model = network(sketch, head)
        kept = to_half(model, observe(model, [photos])).kept
        assert kept["n_product"].startswith("last weighted layer of a head")
        assert "n_logits" not in kept


def test_of_many_learned_vectors_none_looks_fixed(sketch: Any) -> None:
    random = np.random.default_rng(0)
    taken = 0
    for terms in (3, 5, 8, 16, 66):
        for _ in range(40):
            values = random.standard_normal((terms, 1)).astype(np.float32)

            def head(graph: Any, logits: str, values: np.ndarray = values) -> str:
                narrow = graph.gemm(logits, (BINS, len(values)), name="narrow")
                return str(graph.node("MatMul", softmax(graph, narrow), graph.weight("v", values), name="product"))

            model = network(sketch, head)
            taken += sum(is_expectation(node) for node in prepared(model).graph)
    assert taken == 0


def test_an_expectation_inside_a_network_is_no_end_of_a_head(sketch: Any) -> None:
    """Keypoints by integral regression, and layers that read them."""

    def head(graph: Any, logits: str) -> str:
        points = coordinates(graph, logits)
        hidden = graph.node("Relu", graph.gemm(points, (2, 16), name="reader"), name="reader_relu")
        return str(graph.gemm(hidden, (16, 1), name="final"))

    placement = place(network(sketch, head), "cpu")
    assert {"n_logits", "n_reader"} <= set(placement.nodes)
    assert placement.kept.keys() == {"n_product", "n_final"}
    assert "expectation" in placement.kept["n_product"]
