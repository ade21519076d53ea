from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.runtime.kinds.detection.options import DetectionOptions
from mtl_deploy.runtime.kinds.detection.suppression import kept_rows, suppress


def random_boxes(count: int, seed: int, side: float = 200.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centre, extent = random.uniform(0, side, (count, 2)), random.uniform(5, side / 3, (count, 2))
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_suppression_is_torchvisions_class_by_class(threshold: float, seed: int) -> None:
    torch = pytest.importorskip("torch")
    from torchvision.ops import batched_nms

    random = np.random.default_rng(seed)
    boxes, classes = random_boxes(700, seed), random.integers(0, 4, 700)
    scores = random.permutation(700).astype(np.float32) / 700
    found = suppress(boxes, scores, classes, threshold, 700)
    wanted = batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes), threshold).numpy()
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(suppress(boxes, scores, classes, threshold, 17), wanted[:17])


def test_of_equal_scores_the_first_row_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], np.float32)
    same = np.full(3, 0.5, np.float32)
    assert suppress(boxes, same, np.zeros(3, int), 0.5, 9).tolist() == [0, 2]
    assert suppress(boxes, same, np.array([0, 1, 0]), 0.5, 9).tolist() == [0, 1, 2]  # another class


def test_boxes_that_touch_or_have_no_area_do_not_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert suppress(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.zeros(4, int), 0.01, 9).tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_nothing_is_dropped_with_a_threshold_of_one() -> None:
    boxes = np.zeros((5, 4), np.float32) + np.array([0, 0, 3, 3], np.float32)
    assert suppress(boxes, np.arange(5, dtype=np.float32), np.zeros(5, int), 1.0, 3).tolist() == [4, 3, 2]


def test_a_row_is_one_object_or_one_of_each_class() -> None:
    rows = np.array([[0, 0, 8, 8, 0.9, 0.6], [20, 0, 28, 8, 0.1, 0.5]], np.float32)
    best = kept_rows(rows, DetectionOptions(classes=2, score_threshold=0.3))
    assert best[:, 5].tolist() == [0, 1]
    np.testing.assert_allclose(best[:, 4], [0.9, 0.5])
    every = kept_rows(rows, DetectionOptions(classes=2, score_threshold=0.3, per_row="all"))
    assert [(row[4].item(), row[5].item()) for row in every.astype(np.float64).round(3)] == [
        (0.9, 0),
        (0.6, 1),
        (0.5, 1),
    ]


def test_the_threshold_itself_is_not_kept_and_neither_is_what_is_not_finite() -> None:
    rows = np.tile(np.array([0, 0, 8, 8, 0.5], np.float32), (4, 1))
    rows[1, 4], rows[2, 4], rows[3, 0] = np.nan, 0.75, np.inf
    kept = kept_rows(rows, DetectionOptions(classes=1, score_threshold=0.5))
    assert kept.tolist() == [[0, 0, 8, 8, 0.75, 0]]
    assert len(kept_rows(rows[:0], DetectionOptions(classes=1))) == 0


def test_extras_go_with_their_rows() -> None:
    options = DetectionOptions(classes=2, landmarks=1, keypoints=1, coefficients=2, iou_threshold=0.5)
    layout = options.columns
    rows = np.random.default_rng(0).uniform(0, 1, (40, layout.decoded_size)).astype(np.float32)
    rows[:, :4] = random_boxes(40, 1)
    kept = kept_rows(rows, options)
    assert kept.shape[1] == 6 + 2 + 3 + 2 == layout.kept_size
    for row in kept:
        (place,) = np.flatnonzero((rows[:, :4] == row[:4]).all(axis=1))
        np.testing.assert_array_equal(row[6:], rows[place, 6:])
