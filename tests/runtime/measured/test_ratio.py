from __future__ import annotations

from math import comb

import numpy as np
import pytest

from mtl_deploy.runtime.measured.ratio import ratio


@pytest.mark.parametrize("rounds", [6, 7, 8, 15, 30, 50])
def test_the_interval_is_the_narrowest_of_order_statistics_that_holds_in_99_percent(rounds: int) -> None:
    found = ratio(list(range(1, rounds + 1)), [1.0] * rounds)
    cut = round(found.low) - 1  # ratios beyond the interval, on each side
    assert round(found.high) == rounds - cut
    assert found.median == (rounds + 1) / 2

    def missed(beyond: int) -> float:
        return 2 * sum(comb(rounds, k) for k in range(beyond + 1)) / 2**rounds

    assert missed(cut + 1) > 0.01  # a narrower one misses more often
    assert missed(cut) <= 0.01 or (cut == 0 and rounds < 8)


def test_it_holds_as_often_as_it_says_whatever_the_distribution() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        found = ratio(list(rng.lognormal(0, 0.5, 20)), [1.0] * 20)  # its median is 1
        held += found.low <= 1 <= found.high
    assert held >= 980


def test_what_slows_a_round_is_in_both_times() -> None:
    base = np.array([10.0, 10, 10, 40, 10, 25, 10, 10, 90, 10])
    found = ratio(list(0.9 * base), list(base))
    assert (found.low, found.high) == pytest.approx((0.9, 0.9))
    assert found.is_clearly_less
    assert str(found) == "0.90 times, 99 % interval 0.90 to 0.90"


def test_noise_and_little_gains_are_not_clear() -> None:
    rng = np.random.default_rng(1)
    noisy = ratio(list(rng.lognormal(-0.1, 0.3, 20)), [1.0] * 20)
    assert noisy.median < 0.97
    assert not noisy.is_clearly_less
    assert not ratio([0.98] * 20, [1.0] * 20).is_clearly_less
    assert ratio([0.96] * 20, [1.0] * 20).is_clearly_less
