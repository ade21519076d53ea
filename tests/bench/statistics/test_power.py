"""What a measurement could detect, against draws with a known noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_deploy.bench.statistics.power import detectable, starts_to_detect, starts_to_resolve, with_starts
from mtl_deploy.bench.statistics.uncertainty import Uncertainty, of_independent


def found_real(rng: np.random.Generator, starts: int, deviation: float, change: float) -> bool:
    """Measure two runs whose logarithms differ by a change, and say whether the interval excludes none."""
    first, second = (shift + deviation * rng.standard_normal(starts) for shift in (0.0, change))
    return abs(second.mean() - first.mean()) > (of_independent(first) + of_independent(second)).half_width


@pytest.mark.parametrize("pilot", [3, 5, 12])
def test_a_run_as_long_as_the_pilot_asks_for_detects_in_four_of_five_cases_at_least(pilot: int) -> None:
    """However little of the noise a pilot of few starts saw."""
    rng = np.random.default_rng(pilot)
    detected, needed = [], []
    for _ in range(600):
        deviation = float((0.02 * rng.standard_normal(pilot)).std(ddof=1))
        needed.append(starts_to_detect(deviation, pilot, math.log(1.05)))
        detected.append(found_real(rng, needed[-1], 0.02, math.log(1.05)))
    assert 0.75 <= np.mean(detected) <= 0.93
    assert np.median(needed) < 12


def test_the_starts_that_resolve_a_distance_are_just_enough() -> None:
    noises = Uncertainty(0.01**2 / 5, 4), Uncertainty(0.02**2 / 8, 7)
    number = starts_to_resolve(noises, (5, 8), 0.004)
    assert number is not None

    def half(starts: int) -> float:
        return (with_starts(noises[0], 5, starts) + with_starts(noises[1], 8, starts)).half_width

    assert half(number) < 0.004 <= half(number - 1)
    assert starts_to_resolve(noises, (5, 8), 1e-5) is None
    assert starts_to_resolve((Uncertainty(0.0, 4), Uncertainty(0.0, 4)), (5, 5), 0.01) == 2


def test_nothing_is_detectable_where_nothing_is_known_of_the_noise() -> None:
    assert detectable(Uncertainty(0.0, 0)) is None
    assert detectable(Uncertainty(0.01**2, 8)) == pytest.approx(0.01 * (2.306 + 0.889), rel=1e-3)
