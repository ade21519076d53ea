"""Mean average precision against pycocotools, on random boxes with crowds, several classes and equal scores."""

from __future__ import annotations

import numpy as np
import pytest
from random_boxes import CLASSES, Found, by_pycocotools, detections, truths

from mtl_deploy.calibration.kinds.detection.matching import MOST, Truth, matches
from mtl_deploy.calibration.kinds.detection.precision import Precision


def ours(data: list[tuple[Truth, Found]]) -> Precision:
    return Precision([matches(*found, truth, CLASSES) for truth, found in data])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("crowds", [0.0, 0.3])
def test_figures_are_pycocotools(seed: int, crowds: float) -> None:
    random = np.random.default_rng(seed)
    data = [(truth, detections(truth, random, 1 + seed)) for truth in truths(30, random, crowds)]
    wanted, found = by_pycocotools(data), ours(data).figures()
    assert 0.02 < wanted["map"] < wanted["map_50"] < 0.98
    assert found == pytest.approx(wanted, abs=1e-12)


def test_only_the_hundred_best_of_a_class_count() -> None:
    random = np.random.default_rng(1)
    data = [(truth, detections(truth, random, 3, 900)) for truth in truths(4, random, 0.2)]
    assert max(np.bincount(classes).max() for _, (_, _, classes) in data) > MOST
    assert ours(data).figures() == pytest.approx(by_pycocotools(data), abs=1e-12)


def test_perfect_boxes_have_a_precision_of_one_and_none_have_zero() -> None:
    random = np.random.default_rng(2)
    wanted = truths(10, random, 0.0)
    perfect = [(truth, (truth.boxes, np.ones(len(truth)), truth.classes)) for truth in wanted]
    assert ours(perfect).figures() == pytest.approx({"map": 1, "map_50": 1})
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert ours([(truth, nothing) for truth in wanted]).figures() == {"map": 0, "map_50": 0}


def test_weights_count_images_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)
    data = [(truth, detections(truth, random, 2)) for truth in truths(12, random, 0.2)]
    times = random.integers(0, 4, 12)
    distinct = [  # as equal scores of several images stand in another order where one is repeated
        (truth, (boxes, random.permutation(len(scores)) + place / 100, classes))
        for place, (truth, (boxes, scores, classes)) in enumerate(data)
    ]
    repeated = [pair for pair, count in zip(distinct, times, strict=True) for _ in range(count)]
    found = ours(distinct).figures(times.astype(np.float64))
    assert found == pytest.approx(ours(repeated).figures(), abs=1e-12)
    assert found != pytest.approx(ours(distinct).figures(), abs=1e-3)


def test_drawn_figures_are_those_of_each_draw() -> None:
    random = np.random.default_rng(4)
    found = ours([(truth, detections(truth, random, 2)) for truth in truths(20, random, 0.1)])
    counts = random.multinomial(20, np.full(20, 1 / 20), 50).astype(np.float64)
    counts[7] = 0
    drawn = found.drawn(counts)
    wanted = [found.figures(row)["map"] for row in counts]
    np.testing.assert_allclose(drawn, wanted, atol=1e-12)
    assert np.isnan(drawn[7])
    assert np.nanstd(drawn) > 0.005


def test_nothing_to_find_is_no_figure() -> None:
    none = Truth(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))
    nothing = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    assert all(np.isnan(value) for value in ours([(none, nothing)]).figures().values())
