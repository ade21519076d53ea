from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.export.kinds.detection.priors import priors
from mtl_deploy.export.kinds.detection.reading import read
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

PAIRS = (((9.0, 12.0), (20.0, 15.0)), ((40.0, 30.0), (50.0, 60.0)))


def options(*parts: str, **fields: Any) -> DetectionOptions:
    return DetectionOptions(parts=parts, **fields)


def test_what_the_task_does_not_say_is_found_from_shapes() -> None:
    found = read("x", options("boxes+scores"), (), [(100, 24)])
    assert (found.rows, found.options.classes, found.sources[0].axes) == (100, 20, "rows")
    found = read("x", options("boxes", "scores", "landmarks", background="first"), (), [(90, 4), (90, 3), (90, 10)])
    assert (found.options.classes, found.options.landmarks) == (2, 5)
    found = read("x", options("boxes+scores+keypoints"), ("person",), [(100, 56)])
    assert found.options.keypoints == 17
    found = read("x", options("boxes+scores+coefficients", classes=80), (), [(100, 116)])
    assert found.options.coefficients == 32


def test_the_axis_of_values_is_the_one_that_fits() -> None:
    labels = tuple(str(number) for number in range(80))
    assert read("x", options("boxes+scores"), labels, [(84, 8400)]).sources[0].axes == "columns"
    assert read("x", options("boxes+scores"), labels, [(8400, 84)]).sources[0].axes == "rows"
    assert read("x", options("boxes+scores"), labels[:6], [(10, 10)]).sources[0].axes == "rows"
    assert read("x", options("boxes+scores", layout="columns"), labels[:6], [(10, 10)]).sources[0].axes == "columns"
    found = read("x", options("boxes+scores", layout="columns"), (), [(84, 8400)])
    assert (found.rows, found.options.classes) == (8400, 80)


def test_maps_are_anchors_times_values() -> None:
    found = read(
        "x",
        options("boxes+objectness+scores", format="yolov5", anchors=PAIRS, strides=(8, 16)),
        (),
        [(16, 4, 6), (16, 2, 3)],
    )
    assert (found.options.classes, found.rows, found.sources[0].per_place) == (3, 2 * (24 + 6), 2)
    found = read("x", options("scores", "boxes", format="ltrb", strides=(8,)), (), [(6, 4, 6), (8, 4, 6)])
    assert (found.options.classes, found.rows, found.sources[0].per_place) == (3, 48, 2)


@pytest.mark.parametrize(
    ("parts", "fields", "labels", "shapes", "message"),
    [
        ((), {}, (), [(5, 4), (5, 2)], "say what each of its 2 outputs holds"),
        (("boxes", "scores"), {}, (), [(5, 4)], "2 parts for 1 outputs"),
        (("boxes", "scores"), {}, (), [(5, 4), (6, 2)], "different numbers of rows: 5 of boxes, 6 of scores"),
        (
            ("boxes+scores",),
            {},
            ("a", "b"),
            [(50, 9)],
            r"shape \(N, 50, 9\) cannot hold rows of boxes\+scores, 6 values",
        ),
        (("boxes+scores+landmarks",), {}, (), [(50, 9)], "say how many classes"),
        (("boxes+scores+landmarks",), {"classes": 2}, (), [(50, 9)], "leaves 3 for landmarks"),
        (("boxes+scores",), {"scores": "softmax", "classes": 1}, (), [(50, 5)], "softmax of one score is always 1"),
        (("boxes", "boxes+scores"), {}, (), [(50, 4), (50, 6)], "hold the same"),
        (("boxes+scores",), {}, (), [(50, 4)], "leaves 0 for scores"),
    ],
)
def test_what_does_not_fit_is_said(
    parts: tuple[str, ...], fields: dict[str, Any], labels: tuple[str, ...], shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        read("x", options(*parts, **fields), labels, shapes)


def test_priors_lie_where_their_rows_do() -> None:
    given = options("boxes", "scores", format="offsets", anchors=PAIRS, strides=(8, 16), classes=1)
    reading = read("x", given, (), [(60, 4), (60, 1)])
    found = priors("x", reading, (32, 48))
    assert found is not None
    assert found[:3].tolist() == [[4, 4, 9, 12], [4, 4, 20, 15], [12, 4, 9, 12]]  # two anchors, then the next column
    assert found[12].tolist() == [4, 12, 9, 12]  # the next line
    assert found[-1].tolist() == [40, 24, 50, 60]
    cells = priors("x", read("x", options("boxes+scores", format="yolox", strides=(16,)), ("a",), [(6, 5)]), (32, 48))
    assert cells is not None
    assert cells.tolist() == [[16 * x, 16 * y, 16] for y in range(2) for x in range(3)]
    with pytest.raises(
        TaskError, match=r"61 rows; strides \[8, 16\] of an image of 32x48 give 4x6, 2x3 places with 2, 2 anchors, 60"
    ):
        priors("x", read("x", given, (), [(61, 4), (61, 1)]), (32, 48))
    with pytest.raises(
        TaskError, match=r"levels have 4x6, 4x6 places; strides \[8, 16\] of an image of 32x48 give 4x6, 2x3"
    ):
        priors(
            "x", read("x", options("boxes+scores", format="ltrb", strides=(8, 16)), ("a",), [(5, 4, 6)] * 2), (32, 48)
        )


def test_anchors_of_a_file_are_brought_to_centres_in_pixels() -> None:
    given = options(
        "boxes+scores", format="offsets", anchors_file="a.npy", anchors_format="xyxy", axes="yx", normalized=True
    )
    reading = read("x", given, ("a",), [(1, 5)])
    found = priors("x", reading, (100, 200), np.array([[[0.1, 0.2, 0.3, 0.6]]], np.float32))
    assert found is not None
    np.testing.assert_allclose(found, [[80, 20, 80, 20]], rtol=1e-6)
    with pytest.raises(TaskError, match=r"expected finite numbers of shape \(1, 4\)"):
        priors("x", reading, (100, 200), np.zeros((2, 4), np.float32))
    with pytest.raises(TaskError, match="anchors without an area; are they xyxy, y first"):
        priors("x", reading, (100, 200), np.array([[0.3, 0.6, 0.1, 0.2]], np.float32))
