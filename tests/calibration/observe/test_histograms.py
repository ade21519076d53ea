"""Histograms count every value of the graph's own tensors, over all batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.calibration.graph.typed import with_outputs
from mtl_deploy.calibration.observe.histograms import BINS, collect
from mtl_deploy.calibration.observe.statistics import TensorStatistics, observe
from mtl_deploy.runtime.errors import ImageError, WorkError

NAMES = ["normal", "stem", "stem_relu", "sum", "features"]


def test_every_value_is_counted_where_it_lies(multi_head: Any, run: Any, photos: np.ndarray) -> None:
    model = multi_head()
    seen = observe(model, [photos], threads=1)
    found = collect(model, NAMES, [photos], seen, threads=1)
    actual = run(with_outputs(model, NAMES), photos, optimize=False)
    assert list(found) == NAMES
    for name in NAMES:
        values = actual[name].ravel()
        one = found[name]
        assert one.total == values.size
        assert one.zeros == np.count_nonzero(values == 0)
        expected = np.histogram(values, BINS, (one.low, one.high))[0]
        assert (
            np.abs(np.cumsum(one.counts) - np.cumsum(expected)).max() <= 0.01 * values.size
        )  # rounding at bins' borders
        mean = np.sum(one.counts * one.centers) / one.total
        assert mean == pytest.approx(values.mean(), abs=2 * (one.high - one.low) / BINS)


def test_channels_have_their_own_largest_magnitude(multi_head: Any, run: Any, photos: np.ndarray) -> None:
    model = multi_head()
    found = collect(model, ["stem", "features"], [photos], observe(model, [photos]), threads=1)
    actual = run(with_outputs(model, ["stem", "features"]), photos, optimize=False)
    np.testing.assert_allclose(found["stem"].channel_absmax, np.abs(actual["stem"]).max(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["features"].channel_absmax, np.abs(actual["features"]).max(axis=0), rtol=1e-5)


def test_batches_are_added_up(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head()
    seen = observe(model, [photos], threads=1)
    together = collect(model, NAMES, [photos], seen, threads=1)
    apart = collect(model, NAMES, (photos[i : i + 1] for i in range(len(photos))), seen, threads=1)
    for name in NAMES:
        assert together[name].total == apart[name].total
        assert np.abs(np.cumsum(together[name].counts - apart[name].counts)).max() <= 0.01 * together[name].total


def test_values_beyond_what_was_observed_count_at_the_end(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    model = graph.model({graph.node("Relu", "image", name="y"): ("batch", 3, 4, 4)})
    image = np.linspace(-3, 5, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    found = collect(model, ["image"], [image], {"image": TensorStatistics(-1, 1)}, threads=1)["image"]
    assert (found.low, found.high, found.total) == (-1, 1, 48)
    assert found.counts[0] >= np.count_nonzero(image < -1)
    assert found.counts[-1] >= np.count_nonzero(image > 1)


def test_a_constant_tensor_has_one_full_bin(sketch: Any) -> None:
    graph = sketch(image="float", size=4)
    model = graph.model({graph.node("Relu", "image", name="y"): ("batch", 3, 4, 4)})
    image = np.zeros((2, 3, 4, 4), np.float32)
    found = collect(model, ["y"], [image], observe(model, [image]), threads=1)["y"]
    assert (found.counts.max(), found.total, found.zeros) == (96, 96, 96)


def test_what_is_not_finite_is_an_error_that_names_the_tensor(multi_head: Any, photos: np.ndarray) -> None:
    seen = {"stem": TensorStatistics(0, 1, finite=False)}
    with pytest.raises(WorkError, match="'stem' is NaN or infinite"):
        collect(multi_head(), ["stem"], [photos], seen)


def test_no_batch_is_an_error(multi_head: Any, photos: np.ndarray) -> None:
    model = multi_head()
    with pytest.raises(ImageError, match="no images"):
        collect(model, ["stem"], [], observe(model, [photos]))


def test_no_tensors_have_no_histograms(multi_head: Any, photos: np.ndarray) -> None:
    assert collect(multi_head(), [], [photos], {}) == {}
