"""The interval of a difference of shares: against its definition, and how often its end is wrong, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.paired_shares import score_interval


def score(worse: int, better: int, images: int, difference: float) -> float:
    """The score by its definition: the chance of being better that makes what was counted likeliest is looked for on a grid."""
    chances = np.linspace(max(-difference, 0), (1 - difference) / 2, 200_001)[1:-1]
    same = images - worse - better
    likelihood = (
        worse * np.log(chances + difference) + better * np.log(chances) + same * np.log(1 - 2 * chances - difference)
    )
    chance = chances[likelihood.argmax()]
    variance = (2 * chance + difference - difference**2) / images
    return float(((worse - better) / images - difference) / np.sqrt(variance))


@pytest.mark.parametrize(
    ("worse", "better", "images"), [(0, 1, 44), (3, 1, 50), (12, 5, 100), (9, 30, 200), (40, 41, 1000)]
)
def test_both_ends_are_where_the_score_is_1_96(worse: int, better: int, images: int) -> None:
    low, high = score_interval(worse, better, images)
    assert score(worse, better, images, low) == pytest.approx(1.96, abs=0.005)
    assert score(worse, better, images, high) == pytest.approx(-1.96, abs=0.005)


def test_where_no_image_differs_it_is_the_rule_of_three_with_3_84() -> None:
    for images in (10, 100, 1000):
        limit = 1.959964**2 / (images + 1.959964**2)
        assert score_interval(0, 0, images) == pytest.approx((-limit, limit), rel=1e-6)


@pytest.mark.parametrize("counts", [(3, 0), (12, 5), (40, 41), (100, 0)])
def test_it_holds_the_difference_and_turns_round_with_it(counts: tuple[int, int]) -> None:
    worse, better = counts
    low, high = score_interval(worse, better, 100)
    assert -1 <= low <= (worse - better) / 100 <= high <= 1
    assert score_interval(better, worse, 100) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("images", "worse", "better"),
    [(100, 0.01, 0.0), (100, 0.03, 0.02), (341, 0.006, 0.0), (341, 0.01, 0.004), (1000, 0.005, 0.0), (1000, 0.1, 0.1)],
)
def test_its_upper_end_is_rarely_too_low(images: int, worse: float, better: float) -> None:
    """The resampled interval of before was too low in one of eight cases where few images differ."""
    random = np.random.default_rng(0)
    counts = random.multinomial(images, [worse, better, 1 - worse - better], 3000)
    wrong = np.mean([score_interval(int(one), int(other), images)[1] < worse - better for one, other, _ in counts])
    assert wrong < 0.045
