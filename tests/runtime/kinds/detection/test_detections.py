from __future__ import annotations

import json

import numpy as np
import pytest

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.images.fit import ImagePlacement, place
from mtl_deploy.runtime.kinds.detection.detections import Detections, in_image
from mtl_deploy.runtime.kinds.detection.layout import Layout

PLAIN = Layout(classes=3)


def kept(*boxes: tuple[float, ...]) -> np.ndarray:
    return np.array([[*box, 0.9 - place / 10, place] for place, box in enumerate(boxes)], np.float32)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("original", [(300, 200), (40, 90), (64, 64)])
def test_boxes_return_to_where_they_lie_in_the_image(fit: str, original: tuple[int, int]) -> None:
    resize = {"resize_to": (72,)} if fit == "crop" else {}
    preprocessing = Preprocessing(64, 64, fit=fit, **resize)  # type: ignore[arg-type]
    placement = place(*original, preprocessing)
    height, width = original
    box = np.array([0.3 * width, 0.25 * height, 0.6 * width, 0.7 * height])
    point = np.array([0.5 * width, 0.4 * height])
    top, left, inner_height, inner_width = placement.box

    def to_input(
        xy: np.ndarray,
    ) -> np.ndarray:  # an image's corner (0, 0) lies at (left, top), (width, height) at the other end
        return xy / [width, height] * [inner_width, inner_height] + [left, top]

    row = [*to_input(box[:2]), *to_input(box[2:]), 0.75, 2, *to_input(point), *to_input(point), 0.5, 7, 8]
    layout = Layout(classes=3, landmarks=1, keypoints=1, coefficients=2)
    found = in_image(np.array([row], np.float32), layout, placement)
    assert found.landmarks is not None
    assert found.keypoints is not None
    assert found.coefficients is not None
    np.testing.assert_allclose(found.boxes[0], box, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.landmarks[0, 0], point, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.keypoints[0, 0], [*point, 0.5], rtol=1e-4, atol=1e-3)
    assert found.coefficients.tolist() == [[7, 8]]
    assert (found.classes.tolist(), found.scores.tolist()) == ([2], [0.75])


def test_what_lies_in_the_border_is_dropped_and_what_reaches_into_it_is_cut() -> None:
    placement = ImagePlacement((50, 100), (64, 64), (16, 0, 32, 64))
    found = in_image(kept((0, 0, 20, 15), (-5, 10, 32, 32), (60, 40, 90, 90)), PLAIN, placement)
    assert found.classes.tolist() == [1, 2]
    np.testing.assert_allclose(found.boxes, [[0, 0, 50, 25], [93.75, 37.5, 100, 50]])


def test_padding_of_a_graph_is_no_box() -> None:
    rows = kept((0, 0, 8, 8), (1, 1, 9, 9))
    rows[1] = 0
    placement = ImagePlacement((64, 64), (64, 64), (0, 0, 64, 64))
    assert len(in_image(rows, PLAIN, placement)) == 1
    assert len(in_image(rows[1:], PLAIN, placement)) == 0


def test_rows_of_no_class_or_that_are_not_finite_are_left_out() -> None:
    layout = Layout(classes=3, landmarks=1)
    rows = np.zeros((6, 8), np.float32)
    rows[:] = [0, 0, 8, 8, 0.9, 1, 4, 4]
    rows[1, 5], rows[2, 5], rows[3, 5], rows[4, 6], rows[5, 4] = 3, -1, np.nan, np.inf, np.nan
    placement = ImagePlacement((64, 64), (64, 64), (0, 0, 64, 64))
    assert len(in_image(rows, layout, placement)) == 1


def test_a_line_and_json_say_what_was_found() -> None:
    placement = ImagePlacement((64, 64), (64, 64), (0, 0, 64, 64))
    rows = kept((0, 0, 8, 8), (1, 1, 9, 9), (2, 2, 30, 30))
    rows[1, 5] = 0
    found = in_image(rows, PLAIN, placement, ("car", "bus", "person"))
    assert str(found) == "3 boxes: 2 car (best 90.0 %), 1 person (70.0 %)"
    assert found.labels == ("car", "car", "person")
    data = json.loads(json.dumps(found.to_dict()))
    assert data["count"] == 3
    assert data["boxes"][2] == {"box": [2, 2, 30, 30], "score": 0.7, "class": 2, "label": "person"}
    assert str(in_image(rows[:1], PLAIN, placement)) == "1 box: 1 of class 0 (90.0 %)"
    assert str(in_image(rows[:0], PLAIN, placement)) == "no boxes"


def test_detections_are_equal_by_value() -> None:
    placement = ImagePlacement((64, 64), (64, 64), (0, 0, 64, 64))
    one, same = (in_image(kept((0, 0, 8, 8)), PLAIN, placement) for _ in "12")
    other = in_image(kept((0, 0, 8, 9)), PLAIN, placement)
    assert one == same
    assert one != other
    assert one != Detections(one.boxes, one.scores, one.classes, landmarks=np.zeros((1, 1, 2), np.float32))
