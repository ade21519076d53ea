from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.bench.statistics import ENOUGH_ROUNDS, Interval, _resampled_medians, location, quantile, ratio, spread


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


def rounds(rng: np.random.Generator, scale: float, machine: np.ndarray, calls: int = 12) -> list[np.ndarray]:
    """Calls of rounds in which the machine is slower or faster for both contestants."""
    return [scale * slow * rng.lognormal(0, 0.05, calls) for slow in machine]


def coverage(count: int, calls: int, repeats: int) -> float:
    """How often the interval of a ratio holds the truth, 3, where rounds differ by 3 % on their own and the machine by 20 %."""
    rng = np.random.default_rng(2)
    covered = 0
    for repeat in range(repeats):
        machine = rng.lognormal(0, 0.2, count)
        own = rng.lognormal(0, 0.03, (2, count))
        over, under = (rounds(rng, scale, machine * own[i], calls) for i, scale in enumerate((3.0, 1.0)))
        covered += ratio(over, under, seed=repeat, resamples=600).contains(3.0)
    return covered / repeats


@pytest.mark.parametrize("calls", [5, 200])
def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says(calls: int) -> None:
    assert 0.91 <= coverage(20, calls, repeats=300) <= 1.0


def test_the_interval_from_few_rounds_is_too_narrow() -> None:
    assert coverage(3, 200, repeats=300) < 0.85 < coverage(ENOUGH_ROUNDS, 200, repeats=300)


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


def test_the_interval_is_that_of_a_bootstrap_done_by_hand() -> None:
    """Draw the rounds, then each round's calls, and take the medians: what :func:`ratio` does without drawing calls."""
    rng = np.random.default_rng(6)
    machine = rng.lognormal(0, 0.2, 6)
    over, under = ([samples[: 4 + i] for i, samples in enumerate(rounds(rng, s, machine))] for s in (2.0, 1.0))

    def mean_of_medians(side: list[np.ndarray], chosen: np.ndarray) -> float:
        return float(np.mean([np.median(rng.choice(side[i], len(side[i]))) for i in chosen]))

    by_hand = []
    for _ in range(6000):
        chosen = rng.integers(0, 6, 6)
        by_hand.append(mean_of_medians(over, chosen) / mean_of_medians(under, chosen))
    found = ratio(over, under, seed=0, resamples=20000)
    low, high = np.quantile(by_hand, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_many_rounds_are_resampled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    samples = rounds(rng, 2.0, np.ones(40)), rounds(rng, 1.0, np.ones(40))
    whole = ratio(*samples, seed=0)
    monkeypatch.setattr("mtl_deploy.bench.statistics._DRAWS_AT_ONCE", 1000)
    pieces = ratio(*samples, seed=0)
    assert pieces.value == whole.value
    assert (pieces.low, pieces.high) == pytest.approx((whole.low, whole.high), abs=0.1 * (whole.high - whole.low))


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_medians_of_resamples_have_the_distribution_of_drawn_ones(n: int) -> None:
    rng = np.random.default_rng(8)
    samples = rng.lognormal(size=n)
    drawn = np.median(samples[rng.integers(0, n, (40000, n))], axis=1)
    others = np.full(5, -1.0)  # rounds beside it, which must stay out
    found = _resampled_medians([others, samples, others], np.ones((40000, 1), dtype=np.int64), rng)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.mean(found <= np.quantile(drawn, share)) == pytest.approx(
            np.mean(drawn <= np.quantile(drawn, share)), abs=0.02
        )
