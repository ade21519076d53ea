"""Coverage: what a range clips, leaves unused and rounds to zero, and which heads that reaches."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from residual_graph import calibrated, residual_graph

from mtl_deploy.calibration.graph.typed import with_outputs
from mtl_deploy.calibration.int8.coverage import Coverage, coverage
from mtl_deploy.calibration.int8.qdq_placement import place
from mtl_deploy.calibration.observe.histograms import collect
from mtl_deploy.calibration.observe.ranges import Range
from mtl_deploy.calibration.observe.statistics import observe


@pytest.fixture(scope="module")
def model(sketch: Any) -> onnx.ModelProto:
    return residual_graph(sketch)


def covered(
    model: onnx.ModelProto, photos: np.ndarray, ranges: dict[str, Range], style: str = "tensorrt"
) -> dict[str, Coverage]:
    placement = place(model, style)
    histograms = collect(model, placement.tensors, [photos], observe(model, [photos]), threads=1)
    rows = coverage(model, histograms, ranges, placement)
    json.dumps([row.to_dict() for row in rows], allow_nan=False)
    return {row.tensor: row for row in rows}


def test_every_quantized_tensor_is_there_the_noisiest_first(model: onnx.ModelProto, photos: np.ndarray) -> None:
    ranges = calibrated(model, photos)
    ranges["a1_relu"] = Range(0, 100 * ranges["a1_relu"].high)
    found = covered(model, photos, ranges)
    assert set(found) == set(place(model, "tensorrt").tensors)
    noise = [row.noise_db for row in found.values() if row.noise_db is not None]
    assert noise == sorted(noise, reverse=True)
    assert next(iter(found)) == "a1_relu"


def test_a_full_range_clips_nothing_and_a_half_one_what_lies_beyond(
    model: onnx.ModelProto, photos: np.ndarray, run: Any
) -> None:
    ranges = calibrated(model, photos)
    assert {row.clipped for row in covered(model, photos, ranges).values()} == {0}
    ranges["a_relu"] = Range(0, ranges["a_relu"].high / 2)
    values = run(with_outputs(model, ["a_relu"]), photos, optimize=False)["a_relu"]
    share = np.mean(values > ranges["a_relu"].high * (1 + 0.5 / 127))
    assert covered(model, photos, ranges)["a_relu"].clipped == pytest.approx(share, abs=0.003)


def test_the_side_of_s8_that_a_relu_cannot_have_does_not_count_as_unused(
    model: onnx.ModelProto, photos: np.ndarray
) -> None:
    ranges = calibrated(model, photos)
    assert covered(model, photos, ranges)["a_relu"].unused < 0.01
    assert covered(model, photos, ranges, "cpu")["a_relu"].unused < 0.005
    ranges["a_relu"] = Range(0, 4 * ranges["a_relu"].high)
    assert covered(model, photos, ranges)["a_relu"].unused == pytest.approx(1 - 33 / 128, abs=0.01)


def test_a_tensor_of_both_signs_counts_both_sides(model: onnx.ModelProto, photos: np.ndarray) -> None:
    """Of a tensor that is almost never negative, what S8 has for negative values is unused."""
    ranges = calibrated(model, photos)
    signed = [name for name in place(model, "tensorrt").tensors if ranges[name].low < 0]
    name = signed[0]
    full = max(-ranges[name].low, ranges[name].high)
    ranges[name] = Range(-4 * full, 4 * full)
    values = calibrated(model, photos)[name]
    low, high = (round(127 * end / (4 * full)) for end in (values.low, values.high))
    assert covered(model, photos, ranges)[name].unused == pytest.approx(1 - (high - low + 1) / 255, abs=0.01)


def printed(rows: list[dict[str, Any]]) -> str:
    from mtl_deploy.calibration.report import _coverage

    return _coverage(rows)


ROW = {"style": "tensorrt", "tensor": "relu_9", "clipped": 0.0001, "unused": 0.1, "zeroed": 0.02, "noise_db": -38.0}
ROW |= {"dead_channels": 10, "heads": ["age"]}


@pytest.mark.parametrize("change", [{"noise_db": -25.0}, {"clipped": 0.02}, {"unused": 0.8}])
def test_only_tensors_that_stand_out_are_printed(change: dict[str, float]) -> None:
    assert printed([ROW, ROW | {"noise_db": None}]) == ""
    assert printed([ROW | {"unused": 0.498}]) == ""  # as releases recorded it that counted both sides
    text = printed([ROW, ROW | {"tensor": "loud"} | change])
    assert "loud" in text
    assert "relu_9" not in text


def test_a_range_far_too_large_rounds_most_values_to_zero(model: onnx.ModelProto, photos: np.ndarray, run: Any) -> None:
    ranges = calibrated(model, photos)
    assert covered(model, photos, ranges)["a_relu"].zeroed < 0.05
    ranges["a_relu"] = Range(0, 100 * ranges["a_relu"].high)
    values = run(with_outputs(model, ["a_relu"]), photos, optimize=False)["a_relu"]
    share = np.mean(values[values > 0] < ranges["a_relu"].symmetric_scale / 2)
    assert covered(model, photos, ranges)["a_relu"].zeroed == pytest.approx(share, abs=0.02)


def test_dead_channels_are_counted(sketch: Any, photos: np.ndarray) -> None:
    model = residual_graph(sketch)
    for tensor in model.graph.initializer:
        if tensor.name == "b1.bias":
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[:3] = -1000
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    found = covered(model, photos, calibrated(model, photos))
    assert found["b1_relu"].dead_channels == 3


def test_heads_are_those_that_a_tensor_feeds(model: onnx.ModelProto, photos: np.ndarray) -> None:
    ranges = calibrated(model, photos)
    assert covered(model, photos, ranges)["a_relu"].heads == ("age", "gender")
    assert covered(model, photos, ranges, "cpu")["age_relu"].heads == ("age",)
