"""Parts and samples of calibration data are alike, whatever order the images come in and however rare a label is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.held_apart import held_apart
from mtl_deploy.calibration.data.strata import spread
from mtl_deploy.calibration.options import Int8Options

SEEDS = range(12)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)


def faces(count: int = 400) -> CalibrationData:
    """Ages in ascending order, as sorted names of UTKFace would have them; a rare race; most genders are not known."""
    random = np.random.default_rng(1)
    age = np.sort(random.gamma(3, 12, count)).round()
    race = random.choice(4, count)
    race[random.choice(count, 4, replace=False)] = 4
    gender = np.where(random.random(count) < 0.1, random.integers(0, 2, count), -1)
    return CalibrationData(pictures(count), {"age": age, "race": race, "gender": gender}, "faces")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rare_class_is_in_every_part(seed: int) -> None:
    data = faces()
    parts = held_apart(data, Int8Options(budgets="1%", seed=seed))
    assert [len(part) for part in parts if part is not None] == [200, 67, 133]
    for part, share in zip(parts, (1 / 2, 1 / 6, 1 / 3), strict=True):
        assert part is not None
        for task in ("race", "gender"):
            whole = np.bincount(data.labels[task] + 1)[1:]
            found = np.bincount(part.labels[task] + 1, minlength=len(whole) + 1)[1:]
            assert found.min() >= 1
            assert np.abs(found - share * whole).max() <= 6  # the common ones come last
        assert abs((part.labels["race"] == 4).sum() - 4 * share) < 1


def test_three_images_of_a_class_are_one_in_each_part() -> None:
    for count, seed in ((count, seed) for count in (3, 4, 7) for seed in SEEDS):
        label = np.zeros(120, np.int64)
        label[:count] = 1
        parts = held_apart(CalibrationData(pictures(120), {"rare": label}, "x"), Int8Options(budgets="1%", seed=seed))
        assert all(part is not None and (part.labels["rare"] == 1).any() for part in parts)


def test_a_regression_is_spread_alike_over_the_parts() -> None:
    data = faces()
    age = data.labels["age"]
    apart, by_chance = [], []
    for seed in SEEDS:
        means = [part.labels["age"].mean() for part in held_apart(data, Int8Options(budgets="1%", seed=seed)) if part]
        apart.append(max(means) - min(means))
        drawn = np.split(np.random.default_rng(seed).permutation(age), [200, 267])
        by_chance.append(max(part.mean() for part in drawn) - min(part.mean() for part in drawn))
    assert np.mean(apart) < 0.5 * np.mean(by_chance)


def test_a_part_has_the_quantiles_of_a_rare_tail() -> None:
    age = np.concatenate([np.full(90, 30.0) + np.arange(90) / 100, np.arange(80.0, 90)])  # one in ten is old
    for seed in SEEDS:
        data = CalibrationData(pictures(100), {"age": age}, "x")
        assert np.bincount(data.parts((0.5, 0.5), seed)[data.labels["age"] > 50]).tolist() == [5, 5]


def test_several_values_of_a_regression_and_unknown_ones_are_parted() -> None:
    values = np.random.default_rng(0).standard_normal((60, 2))
    values[::3] = np.nan
    part = CalibrationData(pictures(60), {"point": values}, "x").parts((0.5, 0.5), 3)
    assert np.bincount(part).tolist() == [30, 30]
    assert abs(np.isnan(values[part == 0, 0]).sum() - 10) <= 2


def test_parts_follow_their_seed_and_calibration_is_the_same_with_budgets() -> None:
    data = faces(60)
    first, second = (held_apart(data, Int8Options(seed=seed)) for seed in (0, 1))
    assert first[0].digest != second[0].digest
    assert first[0].digest == held_apart(data, Int8Options(seed=0))[0].digest
    budgeted = held_apart(data, Int8Options(budgets="1%"))
    assert budgeted[0].digest == first[0].digest
    assert budgeted[1] is not None
    assert len(budgeted[1]) + len(budgeted[2]) == len(first[2])


def test_two_images_will_do_without_budgets() -> None:
    data = CalibrationData(pictures(2), {}, "x")
    calibration, searched, held_out = held_apart(data, Int8Options())
    assert (len(calibration), searched, len(held_out)) == (1, None, 1)


def test_a_sample_is_spread_over_the_order_and_does_not_follow_a_period() -> None:
    for total, count in ((1000, 64), (65, 64), (128, 64), (7, 3)):
        found = spread(total, count, seed=4)
        ends = np.arange(count + 1) * total // count
        assert all(low <= position < high for position, (low, high) in zip(found, pairwise(ends), strict=True))
    found = spread(1000, 100)
    assert np.bincount(found % 10, minlength=10).max() < 30  # even steps of ten would see one of ten classes alone
    assert spread(1000, 100, seed=1).tolist() != found.tolist() == spread(1000, 100).tolist()
    assert spread(5, 64).tolist() == [0, 1, 2, 3, 4]
