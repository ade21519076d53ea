"""Boxes with scores and classes, in the frame of the original image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite
from mtl_deploy.runtime.predictions.drawing import Box, Mark, Point
from mtl_deploy.runtime.show.colours import palette

from .boxes import Rows, decode_rows
from .detections import Detections, in_image
from .options import DetectionOptions
from .suppression import kept_rows

SHOWN_KEYPOINT = 0.3
"""The least score of a keypoint that is drawn."""


class Detection(Kind):
    """Rows of boxes, suppressed here or in the graph; a prediction's value is a :class:`Detections`."""

    name = "detection"
    called = "a detection"
    takes = frozenset(("labels",))
    options = DetectionOptions
    of_values = True
    keeps_shape = True
    most_outputs = 0
    example = "detection:car,person;output=0;parts=boxes+scores;format=cxcywh"

    def check(self, task: Task) -> None:
        given = options_of(task)
        given.check(task.name, task.labels)
        if task.columns is not None:
            raise TaskError(f"task {task.name!r}: a detection has no columns; parts say what each output holds")
        if task.shape and not _fits(task.shape, given):
            raise TaskError(
                f"task {task.name!r}: rows of shape {task.shape} do not fit its fields, which say {given.columns.raw_size} values "
                f"per row and an input of {' x '.join(map(str, given.input_size)) or 'no'} pixels"
            )
        if given.parts and task.outputs and len(given.parts) not in (1, len(task.outputs)):
            raise TaskError(
                f"task {task.name!r}: {len(given.parts)} parts for {len(task.outputs)} outputs; give one for each, or one for all"
            )

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        given = options_of(task)
        if given.nms == "graph":
            return given.top_k, given.columns.kept_size
        return task.shape[0] if task.shape else 0, given.columns.decoded_size

    def margins_shape(self, task: Task, decoded: tuple[int, ...]) -> tuple[int, ...]:
        return task.shape[0], options_of(task).columns.decoded_size

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        given = options_of(task)
        if placements is None:
            height, width = given.input_size
            placements = [ImagePlacement((height, width), (height, width), (0, 0, height, width))] * len(output)
        found = []
        for sample, placement in zip(output, placements, strict=False):
            value = in_image(kept(task, sample, form), given.columns, placement, task.labels)
            found.append(Prediction(task.name, task.kind, value, labels=task.labels, finite=is_finite(sample)))
        return found

    def words(self, prediction: Prediction) -> str:
        return str(prediction.value)

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        return cast("Detections", prediction.value).to_dict()

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)

    def marks(self, task: Task, prediction: Prediction) -> Sequence[Mark]:
        found: Detections = prediction.value
        marks: list[Mark] = []
        colours = palette(max(options_of(task).classes, len(task.labels), 1))
        for place in reversed(range(len(found))):  # the best ones last, on top
            red, green, blue = (int(part) for part in colours[found.classes[place]])
            left, top, right, bottom = (float(side) for side in found.boxes[place])
            words = f"{found.labels[place]} {100 * float(found.scores[place]):.0f} %"
            marks.append(Box(left, top, right, bottom, (red, green, blue), words))
            points = [] if found.landmarks is None else list(found.landmarks[place])
            if found.keypoints is not None:
                points += [point[:2] for point in found.keypoints[place] if point[2] >= SHOWN_KEYPOINT]
            marks += [Point(float(x), float(y), (red, green, blue)) for x, y in points]
        return marks


def _fits(shape: tuple[int, ...], given: DetectionOptions) -> bool:
    """Return whether rows of this shape can be read as the fields say, which a manifest could contradict."""
    known = given.classes > 0 and len(given.input_size) == 2 and min(given.input_size) > 0
    return known and len(shape) == 2 and shape[1] == given.columns.raw_size


def options_of(task: Task) -> DetectionOptions:
    """Return a detection's own fields."""
    return cast("DetectionOptions", task.options)


def kept(task: Task, sample: Array, form: Outputs, threshold: float | None = None) -> Rows:
    """Return what is kept of one image's output: ``(K, kept_size)``, in pixels of the network's input.

    Args:
        task: with its size.
        sample: one image's output: rows as the network gives them, decoded rows, or what the graph has kept.
        form: ``logits`` for the first, ``decoded`` for the others.
        threshold: a score to take in place of the task's; it has no effect where the graph suppresses.
    """
    given = options_of(task)
    rows = sample.astype(np.float32, copy=False)
    if form == "decoded" and given.nms == "graph":
        return rows[rows[:, 4] > 0]
    if form == "logits":
        height, width = given.input_size
        rows = decode_rows(rows[None], given, (height, width))[0]
    return kept_rows(rows, given, threshold)


KIND = Detection()
