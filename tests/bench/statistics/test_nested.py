from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.bench.statistics.nested import (
    Interval,
    location,
    nested_quantile,
    process_spread,
    quantile,
    spread,
)


def test_the_interval_of_a_quantile_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = np.log(10)  # p90 of an exponential distribution
    found = [quantile(rng.exponential(size=200), 0.9) for _ in range(1500)]
    covered = np.mean([estimate is not None and estimate.contains(truth) for estimate in found])
    assert 0.945 <= covered <= 0.985  # order statistics can only be a little too wide


@pytest.mark.parametrize(("share", "needed"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_a_quantile_is_given_from_the_number_of_samples_that_bounds_it(share: float, needed: int) -> None:
    samples = np.arange(1000, dtype=np.float64)
    assert quantile(samples[: needed - 1], share) is None
    assert quantile(samples[:needed], share) is not None


def test_a_median_and_its_interval_are_order_statistics() -> None:
    estimate = quantile(np.random.default_rng(1).permutation(100).astype(np.float64), 0.5)
    assert estimate == Interval(49.5, 39.0, 60.0)  # the 40th and 61st of 100: P = 0.9648


def test_a_single_interruption_does_not_move_the_location() -> None:
    quiet = [np.full(9, 5.0), np.full(9, 7.0)]
    disturbed = [np.append(np.full(8, 5.0), 500.0), np.full(9, 7.0)]
    assert location([quiet]) == location([disturbed]) == 6.0


def test_the_spread_is_that_of_the_rounds_medians_within_their_processes() -> None:
    rounds_of_one = [np.array([1.0, 1.0, 9.0]), np.array([3.0, 3.0])]
    assert spread([rounds_of_one]) == pytest.approx(np.sqrt(2) / 2)
    assert spread([rounds_of_one, [samples + 100 for samples in rounds_of_one]]) == pytest.approx(np.sqrt(2) / 52)
    assert spread([[np.array([1.0])]]) == 0


def test_the_spread_of_processes_is_that_of_their_locations() -> None:
    assert process_spread([[np.array([1.0])], [np.array([2.0]), np.array([4.0])]]) == pytest.approx(np.sqrt(2) / 2)
    assert process_spread([[np.array([1.0]), np.array([2.0])]]) == 0


def test_a_quantile_of_starts_that_differ_is_as_uncertain_as_they_are() -> None:
    """Two of four starts are slow; the calls of each say nothing new."""
    rng = np.random.default_rng(3)
    starts = [[level + 0.01 * rng.random(500) for _ in range(4)] for level in (1.0, 2.0, 1.0, 2.0)]
    found = nested_quantile(starts, 0.5)
    pooled = quantile(np.concatenate([calls for rounds in starts for calls in rounds]), 0.9)
    assert found is not None
    assert found.low < 1.02
    assert found.high > 1.99
    assert pooled is not None
    assert pooled.high - pooled.low < 0.01
    assert nested_quantile([[np.arange(20.0)] * 2] * 2, 0.99) is None  # 80 calls bound no p99


def test_equal_calls_have_a_quantile_without_width() -> None:
    found = nested_quantile([[np.full(50, 2.0)] * 3] * 4, 0.5)
    assert found == Interval(2.0, 2.0, 2.0)
