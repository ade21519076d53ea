"""The kind in the accuracy table: rows of numbers hold all that its figures need."""

from __future__ import annotations

import numpy as np
import pytest
from random_boxes import CLASSES, by_pycocotools, detections, truths

from mtl_deploy.calibration.accuracy.row_metrics import drop_interval
from mtl_deploy.calibration.kinds.detection.distance import Unlike, distances
from mtl_deploy.calibration.kinds.detection.kind import LEAST_SCORE
from mtl_deploy.calibration.kinds.detection.matching import Truth
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

TASK = Task("found", "detection", options=DetectionOptions(classes=CLASSES, top_k=60, input_size=(64, 64)))
KIND = kind_of(TASK)


def answer(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    boxes, scores, classes = found
    return np.concatenate([boxes, scores[:, None], classes[:, None]], axis=1).astype(np.float32)


def rows_of(data: list) -> np.ndarray:
    return np.stack([KIND.row(TASK, answer(found), truth) for truth, found in data])  # type: ignore[attr-defined]


def rounded(data: list) -> list:
    """Return the same with boxes and scores in float32, which answers are in."""
    return [
        (truth, (boxes.astype(np.float32).astype(float), scores.astype(np.float32).astype(float), classes))
        for truth, (boxes, scores, classes) in data
    ]


def test_rows_give_pycocotools_figures() -> None:
    random = np.random.default_rng(8)
    data = rounded([(truth, detections(truth, random, 3)) for truth in truths(25, random, 0.2)])
    rows = rows_of(data)
    assert rows.shape == (25, CLASSES + 4 * 60)
    assert KIND.measured(TASK, rows) == pytest.approx(by_pycocotools(data), abs=1e-12)  # type: ignore[attr-defined]
    assert KIND.has_truth(TASK, rows).all()  # type: ignore[attr-defined]
    assert KIND.main == "map"
    assert KIND.share


def test_an_interval_holds_the_drop_and_tells_worse_networks_apart() -> None:
    random = np.random.default_rng(4)
    wanted = truths(60, random, 0.1)
    good, same, bad = (
        rows_of([(truth, detections(truth, random, noise)) for truth in wanted]) for noise in (1.0, 1.0, 8.0)
    )
    drop, low, high = drop_interval(TASK, bad, good)
    assert 0 < low < drop < high < 1
    drop, low, high = drop_interval(TASK, same, good)
    assert low < 0 < high
    assert low <= drop <= high
    assert drop_interval(TASK, good, good) == (0, 0, 0)


def test_boxes_are_cut_at_the_images_edges_as_the_runtime_does() -> None:
    truth = Truth(np.array([[0.0, 16, 64, 48]]), np.array([1]), np.array([False]), (0, 16, 64, 48))
    reaching = np.array([[-9, 3, 80, 70, 0.9, 1], [0, 0, 64, 10, 0.8, 1]], np.float32)  # the second lies in the border
    row = KIND.row(TASK, reaching, truth)  # type: ignore[attr-defined]
    assert KIND.measured(TASK, row[None])["map"] == pytest.approx(1)  # type: ignore[attr-defined]


def test_answers_reach_below_the_tasks_threshold() -> None:
    signature = Signature((TASK,), Preprocessing(64, 64))
    rows = np.zeros((1, 3, 4 + CLASSES), np.float32)
    rows[0, :, 2:4] = 8
    rows[0, :, 0] = [0, 20, 40]
    rows[0, :, 2] = [8, 28, 48]
    rows[0, :, 4] = [0.9, 0.1, LEAST_SCORE / 2]
    (found,) = KIND.answers(TASK, rows, signature)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found[:, 4], [0.9, 0.1])


def test_distances_are_from_nothing_to_all_and_grow_with_each_change() -> None:
    boxes = np.array([[0, 0, 10, 10, 0.9, 0], [20, 20, 40, 40, 0.6, 1]], np.float32)
    assert not distances(boxes, boxes, 0.25).any()
    moved, unsure, other = boxes.copy(), boxes.copy(), boxes.copy()
    moved[0, :4] += 1
    unsure[0, 4] -= 0.3
    other[0, 5] = 2
    assert 0 < distances(moved, boxes, 0.25).max() < 0.5
    assert distances(unsure, boxes, 0.25).max() == pytest.approx(0.3, abs=1e-6)
    assert distances(other, boxes, 0.25).max() == 1
    assert distances(boxes[:1], boxes, 0.25).tolist() == pytest.approx([0, 0, 1])
    across = boxes.copy()
    across[1, 4] = 0.24  # falls below the threshold, and is no lost box
    assert distances(across, boxes, 0.25).max() < 0.5
    assert distances(boxes[:0], boxes[:0], 0.25).size == 0


def test_answers_for_other_images_are_far_away() -> None:
    alike, random = Unlike(0.25), np.random.default_rng(0)
    varied = Unlike(0.25)
    for _ in range(5):
        box = random.uniform(0, 40, 2)
        varied.add(np.array([[*box, *(box + 10), 0.9, 0]], np.float32))
        alike.add(np.array([[0, 0, 10, 10, 0.9, 0]], np.float32))
    assert alike.ignoring == 0
    assert varied.ignoring > 0.4


def test_arrays_of_boxes_are_labels_too() -> None:
    array = np.full((3, 2, 5), np.nan)
    array[0, 0] = [1, 2, 3, 4, 2]
    found = KIND.labels_from_array(TASK, array, Preprocessing(64, 64), "labels/found", np.array([2, 0]))
    assert found is not None
    assert len(found) == 2
    assert len(found.read(0)) == 0  # type: ignore[arg-type]
    assert found.read(1).boxes.tolist() == [[1, 2, 3, 4]]  # type: ignore[union-attr]
    for bad, message in ((np.zeros((3, 2, 4)), "floats"), (np.full((3, 2, 5), 9.0), "no index from 0 to 3")):
        with pytest.raises(ImageError, match=message):
            KIND.labels_from_array(TASK, bad, Preprocessing(64, 64), "labels/found", np.arange(3))
