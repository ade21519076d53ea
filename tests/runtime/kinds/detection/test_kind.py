from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions
from mtl_deploy.runtime.predictions.decoding import decode
from mtl_deploy.runtime.predictions.drawing import Box, Point
from mtl_deploy.runtime.show.picture import show

TABLE: dict[str, Any] = {"name": "found", "kind": "detection", "labels": ["car", "person"]}
PLACE = ImagePlacement((64, 64), (64, 64), (0, 0, 64, 64))


def test_a_task_comes_back_from_its_table() -> None:
    table = TABLE | {
        "output": [0, "1.a"],
        "parts": ["boxes", "scores"],
        "format": "offsets",
        "anchors": [[[16, 16], [32.5, 32]], [[64, 64]]],
        "strides": [8, 16],
        "variances": [0.1, 0.2],
        "scores": "softmax",
        "background": "last",
    }
    task = Task.from_dict(table)
    options: DetectionOptions = task.options
    assert options.anchors == (((16, 16), (32.5, 32)), ((64, 64),))
    assert options.variances == (0.1, 0.2)
    assert task.output == (0, "1.a")
    assert Task.from_dict(task.to_dict()) == task


def test_a_task_is_written_on_a_command_line() -> None:
    text = (
        "faces=detection:face;output=0,1;parts=boxes,scores;format=offsets;anchors=[[[16,16]]];strides=8;scores=sigmoid;"
        "variances=0.1,0.2;top_k=5;iou_threshold=0.4;normalized=true;layout=rows"
    )
    options: DetectionOptions = parse_task(text).options
    assert (options.parts, options.anchors, options.strides) == (("boxes", "scores"), (((16, 16),),), (8,))
    assert (options.top_k, options.iou_threshold, options.normalized, options.layout) == (5, 0.4, True, "rows")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "xywhr"}, "format: 'xywhr' is not one of"),
        ({"parts": ["boxes+colour"]}, "parts has 'colour'"),
        ({"parts": ["boxes"]}, "none of its outputs holds scores"),
        ({"parts": ["boxes+boxes+scores"]}, "names a part twice"),
        ({"format": "offsets"}, "relative to anchors; give anchors"),
        ({"format": "ltrb"}, "relative to places; give strides"),
        ({"format": "yolov5", "anchors_file": "a.npy", "strides": [8]}, "as widths and heights per level"),
        ({"strides": [8]}, "have no strides"),
        ({"anchors_file": "a.npy"}, "have no anchors"),
        ({"format": "offsets", "anchors": [[[8, 8]]], "strides": [8, 16]}, "anchors of 1 levels, but 2 strides"),
        ({"format": "offsets", "anchors": [[[8, 8]]], "strides": [8], "anchors_file": "a"}, "give one of anchors"),
        ({"bins": 16}, "only ltrb has bins"),
        ({"format": "ltrb", "strides": [8], "normalized": True}, "leave normalized out"),
        (
            {"format": "yolov3", "anchors": [[[8, 8]]], "strides": [8], "parts": ["boxes+scores+landmarks"]},
            "landmarks beside",
        ),
        ({"score_threshold": 1.0}, "score_threshold 1.0 is not from 0"),
        ({"iou_threshold": 0.0}, "iou_threshold 0.0 is not above 0"),
        ({"top_k": 0}, "top_k 0 is not from 1"),
        ({"variances": [0.1, 0]}, "variances above 0"),
        ({"classes": 5}, "2 labels but 5 classes"),
        ({"output": [1, 2, 3], "parts": ["boxes", "scores"]}, "2 parts for 3 outputs"),
        ({"columns": [0, 6]}, "has no columns"),
        ({"activation": "sigmoid"}, "activation"),
        (
            {"size": 60, "shape": [10, 6], "classes": 2},
            "do not fit its fields, which say 6 values per row and an input of no",
        ),
        (
            {"size": 50, "shape": [10, 5], "classes": 2, "input_size": [64, 64]},
            "do not fit its fields, which say 6 values",
        ),
        ({"size": 60, "shape": [10, 6], "input_size": [64, 64]}, "do not fit its fields"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Task.from_dict(TABLE | fields)


def task_of(**fields: Any) -> Task:
    options = DetectionOptions(classes=2, input_size=(64, 64), **fields)
    size = 3 * options.columns.raw_size
    return Task(
        "found", "detection", labels=("car", "person"), options=options, size=size, shape=(3, options.columns.raw_size)
    )


def test_rows_become_detections_in_either_form() -> None:
    task = task_of(scores="sigmoid", format="cxcywh")
    raw = np.array([[[10, 10, 8, 8, 3, -3], [40, 40, 20, 10, -4, 2], [10, 10, 8, 9, 2, -3]]], np.float32)
    decoded = np.array(
        [[[6, 6, 14, 14, 0.95257413, 0.047], [30, 35, 50, 45, 0.018, 0.8807971], [6, 5.5, 14, 14.5, 0.88, 0.04]]],
        np.float32,
    )
    for output, form in ((raw, "logits"), (decoded, "decoded")):
        (found,) = decode(task, output, form, [PLACE])  # type: ignore[arg-type]
        assert str(found) == "2 boxes: 1 car (95.3 %), 1 person (88.1 %)"
        np.testing.assert_allclose(found.value.boxes, [[6, 6, 14, 14], [30, 35, 50, 45]])
        assert found.finite
    assert decode(task, raw, "logits")[0] == decode(task, raw, "logits", [PLACE])[0]


def test_what_a_graph_has_kept_is_not_suppressed_again() -> None:
    task = task_of(nms="graph", top_k=4)
    assert task.of.decoded_shape(task, 64, 64) == (4, 6)
    kept = np.zeros((1, 4, 6), np.float32)
    kept[0, :2] = [[0, 0, 9, 9, 0.3, 1], [0, 0, 9, 9, 0.28, 1]]
    (found,) = decode(task, kept, "decoded", [PLACE])
    assert len(found.value) == 2


def test_rows_that_are_not_finite_are_said_and_left_out() -> None:
    task = task_of()
    rows = np.zeros((1, 3, 6), np.float32)
    rows[0, 0] = [0, 0, 9, 9, 0.9, 0]
    rows[0, 1] = [0, np.nan, 9, 9, 0.9, 0]
    (found,) = decode(task, rows, "decoded", [PLACE])
    assert str(found) == "1 box: 1 car (90.0 %) (NaN or infinite numbers)"
    assert found.to_dict()["finite"] is False


def test_boxes_and_points_are_drawn_in_the_colour_of_their_class() -> None:
    task = task_of(landmarks=1, keypoints=2)
    rows = np.zeros((1, 3, 6 + 2 + 6), np.float32)
    rows[0, 0] = [8, 8, 24, 24, 0.9, 0, 10, 12, 14, 15, 0.9, 20, 21, 0.1]
    rows[0, 1] = [30, 30, 60, 50, 0.1, 0.8, 40, 40, 41, 42, 0.2, 43, 44, 0.2]
    (found,) = decode(task, rows, "decoded", [PLACE])
    marks = task.of.marks(task, found)  # type: ignore[attr-defined]
    boxes = [mark for mark in marks if isinstance(mark, Box)]
    points = [mark for mark in marks if isinstance(mark, Point)]
    assert [box.text for box in boxes] == ["person 80 %", "car 90 %"]
    assert [(point.x, point.y) for point in points] == [(40, 40), (10, 12), (14, 15)]  # keypoints that are seen
    assert boxes[0].colour != boxes[1].colour
    picture = np.asarray(show(np.zeros((64, 64, 3), np.uint8), {"found": found}, [task]))
    for box in boxes:
        assert (picture == np.array(box.colour)).all(axis=2).sum() > 50
