"""Measures of dense tasks, against the same computed straight from all pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtl_deploy.calibration.accuracy.row_metrics import drop_interval
from mtl_deploy.calibration.kinds.normals.kind import angles
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task

SEGMENTATION = Task("parts", "segmentation", size=4)
DEPTH = Task("depth", "depth", unit="metres", size=1)
NORMALS = Task("normals", "normals", size=3)
SIZE = (9, 11)
IMAGES = 40


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def total(task: Task, answers: np.ndarray, truths: np.ndarray) -> np.ndarray:
    return np.array([kind_of(task).row(task, one, other) for one, other in zip(answers, truths, strict=True)])


def test_mean_iou_is_that_of_one_confusion_matrix_over_known_pixels() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, (IMAGES, *SIZE)).astype(np.int32)  # class 3 never occurs
    answer = np.where(random.random(truth.shape) < 0.3, random.integers(0, 3, truth.shape), truth)
    truth[random.random(truth.shape) < 0.1] = -1
    found = kind_of(SEGMENTATION).total(SEGMENTATION, total(SEGMENTATION, answer, truth).sum(axis=0))
    known = truth >= 0
    overlaps = [
        ((answer == name) & (truth == name)).sum() / (((answer == name) | (truth == name)) & known).sum()
        for name in range(3)
    ]
    assert found["mean_iou"] == pytest.approx(np.mean(overlaps))
    assert found["pixel_accuracy"] == pytest.approx((answer == truth)[known].mean())


def test_depth_is_measured_in_the_linear_scale() -> None:
    random = np.random.default_rng(1)
    truth = random.uniform(1, 8, (IMAGES, *SIZE)).astype(np.float32)
    answer = (truth * random.uniform(0.7, 1.4, truth.shape)).astype(np.float32)
    truth[random.random(truth.shape) < 0.2] = np.nan
    found = kind_of(DEPTH).total(DEPTH, total(DEPTH, answer, truth).sum(axis=0))
    known = np.isfinite(truth)
    error = (answer - truth)[known]
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert found["abs_rel"] == pytest.approx((np.abs(error) / truth[known]).mean(), rel=1e-5)
    quotient = np.maximum(answer / truth, truth / answer)[known]
    assert found["within_1.25"] == pytest.approx((quotient < 1.25).mean())


def test_normals_are_measured_by_their_angle() -> None:
    axis = np.zeros((*SIZE, 3), np.float32)
    axis[..., 2] = 1
    turned = np.zeros_like(axis)
    turned[..., 0], turned[..., 2] = math.sin(math.radians(20)), math.cos(math.radians(20))
    turned[0] = axis[0]
    truth = axis.copy()
    truth[-1] = np.nan
    found = kind_of(NORMALS).total(NORMALS, kind_of(NORMALS).row(NORMALS, turned, truth))
    rows = SIZE[0] - 1
    assert found["mean_angle"] == pytest.approx(20 * (rows - 1) / rows, rel=1e-5)
    assert found["within_11.25"] == pytest.approx(1 / rows)
    assert found["within_22.5"] == 1


def test_small_angles_are_exact() -> None:
    tiny = math.radians(1e-4)
    one, other = np.array([0.0, 0.0, 1.0]), np.array([math.sin(tiny), 0.0, math.cos(tiny)])
    assert angles(one, other) == pytest.approx(1e-4, rel=1e-6)
    assert angles(one, -one) == pytest.approx(180)
    assert angles(one, np.full(3, np.nan)) == np.inf


@pytest.mark.parametrize("task", [DEPTH, NORMALS])
def test_an_answer_that_is_no_number_is_infinitely_wrong(task: Task) -> None:
    truth = np.ones(SIZE, np.float32) if task is DEPTH else unit(np.ones((*SIZE, 3)))
    answer = truth.copy()
    answer[3, 3] = np.nan
    sums = kind_of(task).row(task, answer, truth)[None]
    right = kind_of(task).row(task, truth, truth)[None]
    assert next(iter(kind_of(task).total(task, sums[0]).values())) == np.inf
    assert drop_interval(task, sums, right) == (math.inf, math.inf, math.inf)
    assert kind_of(task).distances(task, answer, truth).max() == np.inf


def test_images_without_known_pixels_add_nothing() -> None:
    nothing = kind_of(DEPTH).row(DEPTH, np.ones(SIZE, np.float32), np.full(SIZE, np.nan, np.float32))
    assert not nothing.any()
    assert not kind_of(SEGMENTATION).row(SEGMENTATION, np.zeros(SIZE, np.int32), np.full(SIZE, 255, np.int32)).any()
    assert np.isnan(kind_of(DEPTH).total(DEPTH, nothing)["rmse"])


def test_the_interval_of_a_drop_holds_the_truth_about_as_often_as_it_says() -> None:
    """Networks whose error is known: depth off by Gaussian noise of 0.30 and 0.33."""
    random = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        sums = []
        for spread in (0.33, 0.30):
            per_image = spread * random.normal(1, 0.1, IMAGES)  # images differ in difficulty
            squares = 100 * per_image**2
            sums.append(np.stack([np.full(IMAGES, 100.0), squares, squares, squares, squares], axis=1))
        low, high = drop_interval(DEPTH, sums[0], sums[1], seed=trial)[1:]
        held += low <= 0.03 * math.sqrt(1 + 0.1**2) <= high
    assert held >= 180


def test_the_same_answers_lose_nothing() -> None:
    random = np.random.default_rng(2)
    truth = random.integers(0, 4, (IMAGES, *SIZE)).astype(np.int32)
    sums = total(SEGMENTATION, (truth + (random.random(truth.shape) < 0.2)) % 4, truth)
    assert drop_interval(SEGMENTATION, sums, sums) == (0.0, 0.0, 0.0)
    worse = total(SEGMENTATION, (truth + (random.random(truth.shape) < 0.4)) % 4, truth)
    drop, low, high = drop_interval(SEGMENTATION, worse, sums)
    assert 0 < low < drop < high
    assert drop == pytest.approx(
        float(
            kind_of(SEGMENTATION).total(SEGMENTATION, sums.sum(axis=0))["mean_iou"]
            - kind_of(SEGMENTATION).total(SEGMENTATION, worse.sum(axis=0))["mean_iou"]
        )
    )
