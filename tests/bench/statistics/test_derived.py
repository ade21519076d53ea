from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.bench.statistics.derived import derived, mean, ratio
from mtl_deploy.bench.statistics.nested import Interval, location


def rounds(rng: np.random.Generator, scale: float, machine: np.ndarray, calls: int = 12) -> list[np.ndarray]:
    """Calls of rounds in which the machine is slower or faster for both contestants."""
    return [scale * slow * rng.lognormal(0, 0.05, calls) for slow in machine]


def coverage(
    processes: int, count: int, *, restart: float, calls: int = 40, paired: bool = True, repeats: int = 250
) -> float:
    """How often the interval of a ratio holds the truth, 3.

    A contestant's processes differ by ``restart`` on their own, its rounds by 3 %; the machine changes by 20 % from round to round
    for both, or where they do not run side by side hardly.
    """
    rng = np.random.default_rng(2)
    covered = 0
    for repeat in range(repeats):
        machine = rng.lognormal(0, 0.2 if paired else 0.01, (processes, count))

        def side(scale: float) -> list[list[np.ndarray]]:
            own = rng.lognormal(0, restart, (processes, 1)) * rng.lognormal(0, 0.03, (processes, count))
            return [rounds(rng, scale, slow, calls) for slow in machine * own]  # noqa: B023 - called in this pass

        covered += ratio(side(3.0), side(1.0), seed=repeat, paired=paired, resamples=400).contains(3.0)
    return covered / repeats


@pytest.mark.parametrize("restart", [0.0, 0.05])
@pytest.mark.parametrize(("processes", "count"), [(3, 8), (10, 4)])
def test_the_interval_of_a_ratio_holds_it_as_often_as_it_says(processes: int, count: int, restart: float) -> None:
    assert 0.92 <= coverage(processes, count, restart=restart) <= 1.0


@pytest.mark.parametrize(("count", "calls"), [(3, 200), (8, 5), (20, 5), (20, 200)])
def test_rounds_of_one_process_are_enough_where_restarts_change_nothing(count: int, calls: int) -> None:
    assert 0.91 <= coverage(1, count, restart=0.0, calls=calls) <= 1.0


def test_one_process_does_not_cover_what_a_restart_changes() -> None:
    assert coverage(1, 20, restart=0.05) < 0.6


@pytest.mark.parametrize("processes", [1, 3])
def test_two_runs_that_are_not_side_by_side_have_an_interval_too(processes: int) -> None:
    found = coverage(processes, 10, restart=0.05 if processes > 1 else 0.0, paired=False)
    assert 0.92 <= found <= 1.0


def test_paired_samples_must_have_the_same_rounds() -> None:
    one, two = [[np.ones(3)] * 2], [[np.ones(3)] * 3]
    with pytest.raises(ValueError, match="different rounds"):
        ratio(one, two, seed=0)
    assert ratio(one, two, seed=0, paired=False) == Interval(1.0, 1.0, 1.0)


def test_processes_may_have_different_numbers_of_rounds() -> None:
    """Each process counts alike, and rounds that a process does not have are never drawn."""
    nested = [[np.full(5, 1.0)] * 4, [np.full(5, 3.0)]]
    assert location(nested) == 2.0
    found = ratio(nested, [[np.ones(5)] * 4, [np.ones(5)]], seed=0)
    assert found.value == 2.0
    assert found.low < 1 < 3 < found.high


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    covered = 0
    for repeat in range(250):
        nested = [[slow * rng.exponential(size=40) for slow in rng.lognormal(0, 0.05, 6)] for _ in range(3)]
        covered += mean(nested, seed=repeat, resamples=400).contains(np.exp(0.05**2 / 2))
    assert 0.92 <= covered / 250 <= 1.0


def test_a_ratio_of_equal_contestants_contains_one() -> None:
    rng = np.random.default_rng(3)
    machine = rng.lognormal(0, 0.3, 20)
    assert ratio([rounds(rng, 1.0, machine)], [rounds(rng, 1.0, machine)], seed=0).contains(1)


def test_slow_changes_of_the_machine_do_not_widen_the_interval() -> None:
    rng = np.random.default_rng(4)
    machine = np.linspace(1, 3, 20)
    found = ratio([rounds(rng, 2.0, machine)], [rounds(rng, 1.0, machine)], seed=0)
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.high - found.low < 0.1


def test_a_ratio_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(5)
    samples = [rounds(rng, 1.0, np.ones(8))], [rounds(rng, 2.0, np.ones(8))]
    assert ratio(*samples, seed=1) == ratio(*samples, seed=1)


def test_the_interval_is_that_of_a_bootstrap_done_by_hand() -> None:
    """Draw processes, then rounds, then calls, and take the medians: what :func:`ratio` does without drawing calls."""
    rng = np.random.default_rng(6)
    machine = rng.lognormal(0, 0.2, (4, 6))
    over, under = (
        [[samples[: 4 + i] for i, samples in enumerate(rounds(rng, s, slow))] for slow in machine] for s in (2.0, 1.0)
    )

    def drawn(side: list[list[np.ndarray]], chosen: list[tuple[int, np.ndarray]]) -> float:
        means = [np.mean([np.median(rng.choice(side[p][i], len(side[p][i]))) for i in rs]) for p, rs in chosen]
        return float(np.mean(means))

    by_hand = []
    for _ in range(4000):
        chosen = [(p, rng.integers(0, 6, 6)) for p in rng.integers(0, 4, 4)]
        by_hand.append(drawn(over, chosen) / drawn(under, chosen))
    found = ratio(over, under, seed=0, resamples=20000)
    stretched = np.log(np.quantile(by_hand, [0.025, 0.975]) / found.value) * np.sqrt(4 / 3) * 3.182 / 1.96
    low, high = found.value * np.exp(stretched)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.07 * (high - low))


def test_many_rounds_are_resampled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    samples = [rounds(rng, 2.0, np.ones(40))], [rounds(rng, 1.0, np.ones(40))]
    whole = ratio(*samples, seed=0)
    monkeypatch.setattr("mtl_deploy.bench.statistics.derived._DRAWS_AT_ONCE", 1000)
    pieces = ratio(*samples, seed=0)
    assert pieces.value == whole.value
    assert (pieces.low, pieces.high) == pytest.approx((whole.low, whole.high), abs=0.1 * (whole.high - whole.low))


def test_a_ratio_is_the_case_of_a_derived_figure() -> None:
    rng = np.random.default_rng(10)
    samples = {name: [rounds(rng, scale, np.ones(8)) for _ in range(3)] for name, scale in (("a", 2.0), ("b", 1.0))}
    found = derived(samples, lambda of: {"ratio": of["a"] / of["b"]}, seed=0, positive=True, resamples=4000)["ratio"]
    assert found == ratio(samples["a"], samples["b"], seed=0)


def test_a_difference_of_contestants_that_are_not_side_by_side_is_as_uncertain_as_both() -> None:
    """What slows both contestants down leaves a difference alone where they ran side by side, and only there."""
    rng = np.random.default_rng(11)
    machine = np.linspace(1, 3, 20)
    samples = {name: [rounds(rng, 1.0, machine)] for name in ("a", "b")}
    widths = []
    for paired in (True, False):
        found = derived(samples, lambda of: {"difference": of["a"] - of["b"]}, seed=0, paired=paired)["difference"]
        assert found.contains(0)
        widths.append(found.high - found.low)
    assert widths[0] < 0.2 * widths[1]
