from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.bench.statistics import Interval, _bootstrap_medians, location, quantile, ratio, spread


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


def rounds(rng: np.random.Generator, scale: float, machine: np.ndarray) -> list[np.ndarray]:
    """Calls of rounds in which the machine is slower or faster for both contestants."""
    return [scale * slow * rng.lognormal(0, 0.05, 12) for slow in machine]


def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for repeat in range(300):
        machine = rng.lognormal(0, 0.2, 15)
        own = rng.lognormal(0, 0.03, (2, 15))  # what each contestant's rounds differ by on their own
        found = ratio(
            rounds(rng, 3.0, machine * own[0]), rounds(rng, 1.0, machine * own[1]), seed=repeat, resamples=600
        )
        covered += found.contains(3.0)
    assert 0.88 <= covered / 300 <= 0.99


def test_a_ratio_of_equal_contestants_contains_one() -> None:
    rng = np.random.default_rng(3)
    machine = rng.lognormal(0, 0.3, 20)
    assert ratio(rounds(rng, 1.0, machine), rounds(rng, 1.0, machine), seed=0).contains(1)


def test_slow_changes_of_the_machine_do_not_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    machine = np.linspace(1, 3, 20)
    found = ratio(rounds(rng, 2.0, machine), rounds(rng, 1.0, machine), seed=0)
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.high - found.low < 0.1


def test_a_single_interruption_does_not_move_the_location() -> None:
    quiet = [np.full(9, 5.0), np.full(9, 7.0)]
    disturbed = [np.append(np.full(8, 5.0), 500.0), np.full(9, 7.0)]
    assert location(quiet) == location(disturbed) == 6.0


def test_a_ratio_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(5)
    samples = rounds(rng, 1.0, np.ones(8)), rounds(rng, 2.0, np.ones(8))
    assert ratio(*samples, seed=1) == ratio(*samples, seed=1)


def test_the_spread_is_that_of_the_rounds_medians() -> None:
    assert spread([np.array([1.0, 1.0, 9.0]), np.array([3.0, 3.0])]) == pytest.approx(np.sqrt(2) / 2)
    assert spread([np.array([1.0])]) == 0


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_medians_of_resamples_have_the_distribution_of_drawn_ones(n: int) -> None:
    rng = np.random.default_rng(6)
    ordered = np.sort(rng.lognormal(size=n))
    drawn = np.median(ordered[rng.integers(0, n, (40000, n))], axis=1)
    found = _bootstrap_medians(ordered, 40000, rng)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.mean(found <= np.quantile(drawn, share)) == pytest.approx(
            np.mean(drawn <= np.quantile(drawn, share)), abs=0.02
        )
