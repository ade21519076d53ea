"""Tensors of hardly any span, or of a huge one, get ranges, and INT8 graphs whose answers are close to FP32's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from mtl_deploy.calibration.int8.bias_correction import correct_bias
from mtl_deploy.calibration.int8.coverage import coverage
from mtl_deploy.calibration.int8.graphs import STYLES, Int8Graphs
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.observe.histograms import BINS, collect
from mtl_deploy.calibration.observe.ranges import LEAST_SCALE, METHODS, Range, choose
from mtl_deploy.calibration.observe.statistics import observe
from mtl_deploy.calibration.options import Int8Options
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

DENORMAL = float(np.finfo(np.float32).smallest_subnormal)
FACTORS = {
    "smallest denormal": DENORMAL,
    "denormal": 1e-40,
    "bins below normal": 1e-36,
    "zero": 0.0,
    "large": 1e30,
}


def branched(sketch: Any, factor: float) -> onnx.ModelProto:
    """A branch multiplies by ``factor`` before a quantized convolution and returns to the usual scale behind it."""
    graph = sketch()
    stem = graph.node("Relu", graph.conv(graph.normalised(), (3, 8), name="stem"), name="stem_relu")
    graph.node("Mul", stem, graph.weight("factor", np.float32(factor)), name="scaled_stem")
    branch = graph.conv("scaled_stem", (8, 8), name="branch")
    back = np.float32(1 if factor < 1 else 1 / factor)
    graph.node("Mul", branch, graph.weight("back", back), name="restored")
    graph.node("Add", "restored", graph.conv(stem, (8, 8), name="body"), name="sum")
    graph.gemm(graph.features("sum"), (8, 1), name="age")
    return graph.model({"age": ("batch", 1)})


@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_answers_stay_those_of_fp32(sketch: Any, run: Any, factor: float) -> None:
    model = branched(sketch, factor)
    images = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    signature = Signature((Task("age", "regression", size=1),), Preprocessing(16, 16))
    graphs = Int8Graphs(model.SerializeToString(), images, signature, None, Int8Options(threads=1))
    graphs.ranges = graphs.find_ranges()
    assert "scaled_stem" in graphs.histograms()
    expected = run(model, images)["age"]
    spread = expected.max() - expected.min()
    for style in STYLES:
        for method in METHODS:
            built = graphs.build(style, method)
            for each in onnx.load_from_string(built.content).graph.initializer:
                if each.name.endswith("/scale"):
                    scale = onnx.numpy_helper.to_array(each)
                    assert (np.isfinite(scale) & (scale >= LEAST_SCALE)).all()
            found = run(onnx.load_from_string(built.runnable), images)["age"]
            assert np.abs(found - expected).max() < 0.25 * spread
    methods, errors = graphs.choose_methods()
    assert all(np.isfinite(error) for found in errors.values() for error in found.values())
    rows = graphs.coverage(methods)
    assert len(rows) > len(STYLES)


SPANS = {
    "one value": np.full(5000, 5.0),
    "one negative value": np.full(5000, -5.0),
    "one denormal": np.full(5000, DENORMAL),
    "zero and a denormal": np.repeat([0.0, DENORMAL], 2500),
    "denormals": np.linspace(-9, 50, 5000).round() * DENORMAL,
    "denormal bins": np.linspace(-1e-36, 2e-36, 5000),
    "nearly all numbers": np.linspace(-1e38, 3.3e38, 5000),
    "far from zero": 1e6 + np.linspace(0, 0.5, 5000),
}


@pytest.mark.parametrize("name", SPANS)
def test_every_value_is_counted_once_in_the_bin_it_lies_in(sketch: Any, name: str) -> None:
    values = SPANS[name].astype(np.float32)
    histogram = counted(sketch, values)
    assert histogram.total == values.size
    if histogram.high > histogram.low:
        exact = (values.astype(np.float64) - histogram.low) / (histogram.high - histogram.low) * BINS
        expected = np.bincount(np.minimum(exact.astype(int), BINS - 1), minlength=BINS)
        assert np.abs(np.cumsum(histogram.counts - expected)).max() <= 0.002 * values.size  # float32 at bins' borders
    else:
        assert histogram.counts.max() == values.size


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_a_usable_range(sketch: Any, name: str, method: str) -> None:
    values = SPANS[name].astype(np.float32).astype(np.float64)
    histogram = counted(sketch, values.astype(np.float32))
    for symmetric in (True, False):
        chosen = choose(histogram, method, symmetric=symmetric)
        scale, zero = (chosen.symmetric_scale, 0) if symmetric else chosen.asymmetric()
        lowest, highest = (-127, 127) if symmetric else (0, 255)
        assert np.float32(scale) >= LEAST_SCALE
        assert lowest <= zero <= highest
        rounded = (np.clip(np.rint(values / scale) + zero, lowest, highest) - zero) * scale
        assert np.abs(rounded - values).max() <= max(0.13 * np.abs(values).max(), 255 * LEAST_SCALE)


def counted(sketch: Any, values: np.ndarray) -> Any:
    """Count values as they are: an input of a graph that only takes their absolute values."""
    graph = sketch(image="float", size=100)
    model = graph.model({graph.node("Abs", "image", name="y"): ("batch", 3, 100, 100)})
    image = np.resize(values, (1, 3, 100, 100)).astype(np.float32)
    image.ravel()[values.size :] = values[0]
    image = image.copy()
    seen = observe(model, [image], threads=1)
    found = collect(model, ["image"], [image], seen, threads=1)["image"]
    first = int(np.flatnonzero(found.counts)[0]) if values[0] == values.min() else int(np.flatnonzero(found.counts)[-1])
    found.counts[first] -= image.size - values.size
    return found


def test_coverage_of_a_denormal_tensor_is_finite(sketch: Any) -> None:
    model = branched(sketch, 1e-40)
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    placement = place(model, "cpu")
    found = collect(model, placement.tensors, [images], observe(model, [images], threads=1), threads=1)
    ranges = {name: choose(one, "minmax", symmetric=False) for name, one in found.items()}
    assert ranges["scaled_stem"].asymmetric() == (1.0, 0)
    for row in coverage(model, found, ranges, placement):
        assert all(np.isfinite(figure) for figure in (row.clipped, row.unused, row.zeroed, row.noise_db or 0.0))


def test_a_bias_is_not_corrected_through_a_factor_of_hardly_anything(sketch: Any) -> None:
    graph = sketch()
    hidden = graph.gemm(graph.features(graph.conv(graph.normalised(), (3, 8), name="stem")), (8, 1), name="raw")
    graph.nodes[-1].input.append(graph.weight("raw.bias", np.zeros(1, np.float32)))
    graph.node("Mul", hidden, graph.weight("tiny", np.float32(DENORMAL)), name="age")
    model = graph.model({"age": ("batch", 1)})
    assert not correct_bias(model, "age", np.array([0.5]))
    assert correct_bias(model, "age", np.array([2 * DENORMAL]))
    bias = next(one for one in model.graph.initializer if one.name == "raw.bias")
    assert onnx.numpy_helper.to_array(bias) == 2


def test_a_range_of_denormals_is_a_range_of_zeros() -> None:
    assert Range(-DENORMAL, 40 * DENORMAL).symmetric_scale == 1
    assert Range(-DENORMAL, 40 * DENORMAL).asymmetric() == (1.0, 0)
    assert Range(0, 255 * LEAST_SCALE).asymmetric() == (LEAST_SCALE, 0)
