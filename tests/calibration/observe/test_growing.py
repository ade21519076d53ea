"""Histograms that grow count every value once, and ranges chosen from them are those of histograms whose ends were known before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.calibration.observe.growing import MOST, GrowingHistograms
from mtl_deploy.calibration.observe.histograms import BINS, Histogram, collect
from mtl_deploy.calibration.observe.ranges import METHODS, choose
from mtl_deploy.calibration.observe.statistics import TensorStatistics, observe
from mtl_deploy.runtime.errors import WorkError

RANDOM = np.random.default_rng(7)
SAMPLES = {
    "normal": RANDOM.standard_normal((12, 8, 2000)),
    "rectified": np.maximum(RANDOM.standard_normal((12, 8, 2000)), 0),
    "heavy": RANDOM.standard_t(3, (12, 8, 2000)),
    "ever larger": RANDOM.standard_normal((12, 8, 2000)) * 3.0 ** np.arange(12)[:, None, None],
    "moving": RANDOM.standard_normal((12, 8, 2000)) - 5.0 * np.arange(12)[:, None, None],
    "equal at first": RANDOM.standard_normal((12, 8, 2000)) * (np.arange(12) > 4)[:, None, None] + 1,
    "subnormal": RANDOM.standard_normal((12, 8, 2000)) * 1e-40,
    "the largest": np.clip(RANDOM.standard_normal((12, 8, 2000)), -3.3, 3.3) * 1e38,
}


def grown(values: np.ndarray, size: int = 1) -> Histogram:
    growing = GrowingHistograms(["x"])
    for start in range(0, len(values), size):
        growing.add({"x": values[start : start + size]})
    return growing.histograms({"x": TensorStatistics(float(values.min()), float(values.max()))})["x"]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_value_is_counted_where_it_lies(name: str) -> None:
    values = SAMPLES[name].astype(np.float32)
    found = grown(values)
    assert (found.total, found.zeros) == (values.size, np.count_nonzero(values == 0))
    assert (found.low, found.high) == (values.min(), values.max())
    assert BINS // 2 < len(found.counts) <= MOST
    assert found.edges[0] == found.low
    assert found.edges[-1] == pytest.approx(found.high, rel=1e-6)
    expected = np.searchsorted(np.sort(values, axis=None).astype(np.float64), found.edges[1:-1])
    assert np.abs(np.cumsum(found.counts)[:-1] - expected).max() <= 0.002 * values.size  # rounding at the borders
    np.testing.assert_array_equal(found.channel_absmax, np.abs(values).max(axis=(0, 2)))


@pytest.mark.parametrize("name", ["normal", "rectified", "heavy", "ever larger", "moving"])
@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_those_of_known_ends(name: str, method: str) -> None:
    values = SAMPLES[name].astype(np.float32)
    low, high = float(values.min()), float(values.max())
    counts = np.histogram(values, BINS, (low, high))[0]
    known = Histogram(counts.astype(np.int64), low, high, int(np.count_nonzero(values == 0)))
    near = 0 if method == "minmax" else 0.15 if method == "entropy" else 0.02  # entropy's minimum is flat
    for symmetric in (True, False):
        found, expected = (choose(one, method, symmetric=symmetric) for one in (grown(values), known))
        assert (found.low, found.high) == pytest.approx(
            (expected.low, expected.high), rel=near, abs=2 * (high - low) / BINS
        )


@pytest.mark.parametrize("name", SAMPLES)
def test_the_size_of_batches_changes_nothing(name: str) -> None:
    values = SAMPLES[name].astype(np.float32)
    one, other = grown(values), grown(values, 5)
    assert (one.first, one.width, one.zeros) == (other.first, other.width, other.zeros)
    assert np.abs(np.cumsum(one.counts - other.counts)).max() <= 2e-4 * values.size  # rounding at the borders


def test_a_tensor_of_one_value_has_one_full_bin() -> None:
    found = grown(np.full((3, 2, 4), 2.5, np.float32))
    assert (found.counts.max(), found.total, found.low, found.high) == (24, 24, 2.5, 2.5)


def test_what_is_not_finite_is_an_error_that_names_the_tensor() -> None:
    growing = GrowingHistograms(["x"])
    for value in (1.0, np.nan, np.inf, 2.0):
        growing.add({"x": np.full((1, 2), value, np.float32)})
    with pytest.raises(WorkError, match="'x' is NaN or infinite"):
        growing.histograms({"x": TensorStatistics(1, 2, finite=False)})


def test_one_pass_finds_what_two_find(multi_head: Any, photos: np.ndarray) -> None:
    model, names = multi_head(), ["normal", "stem_relu", "sum", "features"]
    batches = [photos[i : i + 1] for i in range(len(photos))]
    growing, taken = GrowingHistograms(names), []

    def take(found: dict[str, np.ndarray]) -> None:
        taken.append(found["age"])
        growing.add(found)

    seen = observe(model, batches, threads=1, also=[*names, "age"], take=take)
    assert seen == observe(model, batches, threads=1)
    assert np.concatenate(taken).shape == (len(photos), 1)
    known = collect(model, names, batches, seen, threads=1)
    for name, found in growing.histograms(seen).items():
        assert (found.low, found.high, found.total) == (known[name].low, known[name].high, known[name].total)
        np.testing.assert_array_equal(found.channel_absmax, known[name].channel_absmax)
        for method in ("percentile", "mse"):
            one, other = choose(found, method), choose(known[name], method)
            assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=0.02)
