"""The intervals hold the truth as often as they say, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.bootstrap import paired_interval

TRIALS = 300
# of 300 trials with a chance of 0.95, fewer than 0.91 happen once in a thousand


@pytest.mark.parametrize(
    ("images", "worse", "better"),
    [(50, 0.02, 0.02), (100, 0.01, 0.0), (200, 0.02, 0.01), (200, 0.1, 0.05), (500, 0.005, 0.002), (1000, 0.02, 0.02)],
)
def test_the_interval_of_an_accuracy_holds_the_true_drop(images: int, worse: float, better: float) -> None:
    held = 0
    for trial in range(TRIALS):
        random = np.random.default_rng(trial)
        losses = random.choice([1.0, -1.0, 0.0], images, p=[worse, better, 1 - worse - better])
        _, low, high = paired_interval(losses, np.zeros(images), shares=True, seed=trial)
        held += low <= worse - better <= high
    assert held / TRIALS >= 0.91


@pytest.mark.parametrize("images", [30, 100, 300])
def test_the_interval_of_an_error_holds_the_true_drop_and_is_not_wasteful(images: int) -> None:
    held = 0
    for trial in range(TRIALS):
        random = np.random.default_rng(trial)
        truth = random.uniform(0, 90, images)
        reference = np.abs(random.normal(0, 6, images))
        losses = reference + random.normal(0.1, 1, images) * (0.5 + truth / 90)
        _, low, high = paired_interval(losses, reference, shares=False, seed=trial)
        held += low <= 0.1 <= high
    assert 0.90 <= held / TRIALS <= 0.985


def test_pairing_makes_the_interval_far_narrower_than_the_losses_spread() -> None:
    random = np.random.default_rng(0)
    reference = np.abs(random.normal(0, 6, 400))
    drop, low, high = paired_interval(reference + 0.1 + random.normal(0, 0.01, 400), reference, shares=False)
    assert low < 0.1 < high
    assert high - low < 0.01
    assert drop == pytest.approx(0.1, abs=0.002)


def test_no_difference_among_few_images_does_not_prove_that_there_is_none() -> None:
    right = np.ones(100)
    drop, low, high = paired_interval(right, right, shares=True)
    assert drop == 0
    assert low < -0.005
    assert 0.005 < high < 0.05
    assert paired_interval(np.ones(10000), np.ones(10000), shares=True)[2] < 0.0005


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_the_interval_holds_the_drop_itself_even_of_one_image(shares: bool, value: float) -> None:
    drop, low, high = paired_interval(np.array([value]), np.zeros(1), shares=shares)
    assert low <= drop == value <= high


def test_the_interval_follows_its_seed() -> None:
    losses = np.random.default_rng(0).normal(0, 1, 50)
    intervals = [paired_interval(losses, np.zeros(50), shares=False, seed=seed) for seed in (1, 1, 2)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_many_images_are_drawn_in_pieces() -> None:
    losses = np.random.default_rng(0).normal(0.5, 1, 30000)
    drop, low, high = paired_interval(losses, np.zeros(30000), shares=False)
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(30000), rel=0.1)
    assert low < drop < high


@pytest.mark.parametrize("shares", [True, False])
def test_an_infinite_loss_is_an_infinite_drop(shares: bool) -> None:
    broken = np.array([0.0, np.inf, 1.0])
    assert paired_interval(broken, np.zeros(3), shares=shares) == (np.inf, np.inf, np.inf)
