"""Ranges are those that each method promises, against searches written out in numpy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.calibration.observe.histograms import BINS, Histogram
from mtl_deploy.calibration.observe.ranges import METHODS, PERCENTILE, Range, choose, expected_error
from mtl_deploy.runtime.errors import OptionError

RANDOM = np.random.default_rng(5)
SAMPLES = {
    "normal": RANDOM.standard_normal(200_000),
    "rectified": np.maximum(RANDOM.standard_normal(200_000), 0),
    "heavy": RANDOM.standard_t(3, 200_000),
    "shifted": RANDOM.standard_normal(200_000) + 2,
}


def histogram(values: np.ndarray) -> Histogram:
    low, high = float(values.min()), float(values.max())
    counts = np.histogram(values, BINS, (low, high) if high > low else (low, low + 1))[0]
    return Histogram(counts.astype(np.int64), low, high, int(np.count_nonzero(values == 0)))


def symmetric_error(values: np.ndarray, chosen: Range) -> float:
    step = chosen.symmetric_scale
    return float(np.mean((values - step * np.clip(np.rint(values / step), -127, 127)) ** 2))


def asymmetric_error(values: np.ndarray, chosen: Range) -> float:
    step, zero = chosen.asymmetric()
    return float(np.mean((values - step * (np.clip(np.rint(values / step) + zero, 0, 255) - zero)) ** 2))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("method", METHODS)
def test_every_range_holds_zero_and_lies_within_what_was_seen(name: str, method: str) -> None:
    values = SAMPLES[name]
    for symmetric in (True, False):
        chosen = choose(histogram(values), method, symmetric=symmetric)
        assert min(values.min(), 0) - 1e-9 <= chosen.low <= 0 <= chosen.high <= values.max() + 1e-9
        assert chosen.high > 0


def test_minmax_clips_nothing() -> None:
    values = SAMPLES["heavy"]
    assert choose(histogram(values), "minmax") == Range(values.min(), values.max())


@pytest.mark.parametrize("name", SAMPLES)
def test_percentile_leaves_one_in_a_hundred_thousand_outside(name: str) -> None:
    values = np.concatenate([SAMPLES[name]] * 10)  # 20 of two millions
    chosen = choose(histogram(values), "percentile")
    threshold = max(-chosen.low, chosen.high)
    bin_width = (values.max() - values.min()) / BINS
    assert threshold == pytest.approx(np.percentile(np.abs(values), PERCENTILE), abs=2 * bin_width)


@pytest.mark.parametrize("name", SAMPLES)
def test_percentile_of_u8_cuts_as_many_beyond_either_end(name: str) -> None:
    values = np.concatenate([SAMPLES[name]] * 10)
    chosen = choose(histogram(values), "percentile", symmetric=False)
    low, high = np.percentile(values, [(100 - PERCENTILE) / 2, (100 + PERCENTILE) / 2])
    bin_width = (values.max() - values.min()) / BINS
    assert chosen.low == pytest.approx(min(low, 0), abs=2 * bin_width)
    assert chosen.high == pytest.approx(high, abs=2 * bin_width)


@pytest.mark.parametrize("name", SAMPLES)
def test_mse_is_close_to_the_least_error_of_all_thresholds(name: str) -> None:
    values = SAMPLES[name]
    chosen = choose(histogram(values), "mse")
    thresholds = np.abs(values).max() * np.linspace(0.01, 1, 200)
    least = min(symmetric_error(values, Range(-threshold, threshold)) for threshold in thresholds)
    assert symmetric_error(values, chosen) <= 1.03 * least
    both = choose(histogram(values), "mse", symmetric=False)
    assert asymmetric_error(values, both) <= 1.03 * asymmetric_error(values, chosen)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_expected_error_is_that_of_the_values(name: str) -> None:
    values = SAMPLES[name]
    for method in METHODS:
        chosen = choose(histogram(values), method)
        assert expected_error(histogram(values), chosen, symmetric=True) == pytest.approx(
            symmetric_error(values, chosen), rel=0.05
        )
        assert expected_error(histogram(values), chosen, symmetric=False) == pytest.approx(
            asymmetric_error(values, chosen), rel=0.05
        )


def test_entropy_clips_a_tail_and_keeps_the_bulk() -> None:
    values = np.concatenate([RANDOM.standard_normal(200_000), [9.0, -12.0]])
    chosen = choose(histogram(values), "entropy")
    assert 2 < chosen.high < 9
    assert np.mean(np.abs(values) > chosen.high) < 0.05


@pytest.mark.parametrize("symmetric", [True, False])
def test_entropy_does_not_take_chance_for_information(symmetric: bool) -> None:
    """Few values leave rough counts. Merged into fewer levels these lose nothing that a small threshold would save."""
    for seed in range(5):
        values = np.maximum(np.random.default_rng(seed).uniform(-1, 1, 20_000), 0)
        assert choose(histogram(values), "entropy", symmetric=symmetric).high > 0.95


def test_entropy_does_not_clip_for_values_that_come_again_and_again() -> None:
    """A flat background: 40 values hold half of all."""
    random = np.random.default_rng(2)
    smooth = np.maximum(random.standard_normal(400_000), 0)
    flat = np.repeat(random.uniform(0, 3, 40), 5_000)
    without, with_atoms = (
        choose(histogram(values), "entropy", symmetric=False) for values in (smooth, np.concatenate([smooth, flat]))
    )
    assert with_atoms.high >= 0.9 * without.high
    assert np.mean(smooth > with_atoms.high) < 1e-3


@pytest.mark.parametrize("share", [0.79, 0.9, 0.97, 0.999])
def test_entropy_does_not_depend_on_how_bins_of_both_signs_fall_together(share: float) -> None:
    values = np.random.default_rng(3).uniform(-share, 1, 1_000_000)
    chosen = choose(histogram(values), "entropy")
    assert chosen.high > 0.97


def test_entropy_keeps_the_values_at_which_an_activation_is_clipped() -> None:
    """ReLU6 leaves many values at exactly 6, the largest."""
    values = np.clip(4 * np.random.default_rng(4).standard_normal(200_000), 0, 6)
    for symmetric in (True, False):
        assert choose(histogram(values), "entropy", symmetric=symmetric).high == pytest.approx(6, rel=0.01)


def test_percentile_reaches_behind_a_single_outlier_and_minmax_does_not() -> None:
    bulk = RANDOM.standard_normal(200_000)
    values = np.concatenate([bulk, [400.0]])
    clipped, whole = (choose(histogram(values), method) for method in ("percentile", "minmax"))
    assert clipped.high < 10
    assert whole.high == 400
    assert symmetric_error(bulk, clipped) < 0.01 * symmetric_error(bulk, whole)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_a_usable_step(method: str) -> None:
    chosen = choose(histogram(np.zeros(1000)), method)
    assert chosen == Range(0, 0)
    assert chosen.symmetric_scale == 1
    assert chosen.asymmetric() == (1, 0)


def test_an_asymmetric_range_represents_zero_and_its_ends() -> None:
    step, zero = Range(-0.3, 6).asymmetric()
    assert step == pytest.approx(6.3 / 255)
    assert zero == round(0.3 / step)
    assert Range(0, 6).asymmetric() == (pytest.approx(6 / 255), 0)
    assert Range(-6, 0).asymmetric() == (pytest.approx(6 / 255), 255)


def test_a_method_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    with pytest.raises(OptionError, match=r"'best'.*minmax, percentile, mse, entropy"):
        choose(histogram(SAMPLES["normal"]), "best")
