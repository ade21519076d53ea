"""Named points of the image: the peaks of heatmaps, one per point, in the image's own frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.drawing import Colour, Line, Mark, Point
from mtl_deploy.runtime.show.colours import palette

from .heatmaps import points_of
from .options import KeypointOptions, position

LISTED = 3  # points that a line names


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The points of one image.

    Attributes:
        points: ``(K, 2) float32``: x and y in the image's pixels, from its upper left corner.
        scores: ``(K,) float32``: the highest value of each heatmap, as the network gives it.
    """

    points: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def __eq__(self, other: object) -> bool:
        """Whether all coordinates and scores are the same."""
        if not isinstance(other, Keypoints):
            return NotImplemented
        return np.array_equal(self.points, other.points) and np.array_equal(self.scores, other.scores)

    __hash__ = None  # type: ignore[assignment]


class KeypointKind(Kind):
    """The decoded graph gives ``(N, K, 3) float32``: x and y in the network's input, and the score."""

    name = "keypoints"
    called = "keypoints"
    takes = frozenset(("labels", "stride"))
    options = KeypointOptions
    of_maps = True
    example = "keypoints:nose,left_eye,right_eye"

    def check(self, task: Task) -> None:
        ends = [end for line in task.options.skeleton for end in line]
        for point in ends if task.options.pck_size in ("box", "image") else [*ends, *task.options.pck_size]:
            position(task, point)
        if not isinstance(task.options.pck_size, str) and len(set(task.options.pck_size)) < 2:
            raise TaskError(f"task {task.name!r}: pck_size names one point twice; their distance is 0")
        _require_count(task, len(task.labels), "labels")

    def check_size(self, task: Task, size: int) -> None:
        if task.labels and len(task.labels) != size:
            raise TaskError(
                f"task {task.name!r} has {len(task.labels)} labels but the network returns {size} heatmaps, one per point"
            )
        _require_count(task, size, "heatmaps")

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        return task.size, 3

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        found = output if form == "decoded" else points_of(task, output.astype(np.float32, copy=False))
        if placements is None:
            return [_prediction(task, row, raw, None) for row, raw in zip(found, output, strict=True)]
        return [_prediction(task, row, raw, spot) for row, raw, spot in zip(found, output, placements, strict=False)]

    def words(self, prediction: Prediction) -> str:
        value: Keypoints = prediction.value
        listed = [
            f"{_named(prediction.labels, place)} ({x:.1f}, {y:.1f}) {score:.2f}"
            for place, ((x, y), score) in enumerate(zip(value.points, value.scores, strict=True))
        ]
        more = f", {len(listed) - LISTED} more" if len(listed) > LISTED else ""
        return ", ".join(listed[:LISTED]) + more

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        value: Keypoints = prediction.value
        rows = []
        for place, (x, y, score) in enumerate(np.column_stack([value.points, value.scores]).tolist()):
            numbers = {"x": json_number(x), "y": json_number(y), "score": json_number(score)}
            rows.append({"name": _named(prediction.labels, place)} | numbers)
        return {"points": rows}

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)

    def marks(self, task: Task, prediction: Prediction) -> Sequence[Mark]:
        value: Keypoints = prediction.value
        with np.errstate(invalid="ignore"):
            shown = value.scores >= task.options.least_score
        colours = [_colour(row) for row in palette(max(len(shown), 1))]
        marks: list[Mark] = []
        for line in task.options.skeleton:
            first, second = (position(task, end) for end in line)
            if shown[first] and shown[second]:
                start, end = ((float(x), float(y)) for x, y in (value.points[first], value.points[second]))
                marks.append(Line(start, end, colours[second]))
        few = len(shown) <= LISTED
        for place in np.flatnonzero(shown):
            x, y = value.points[place]
            text = _named(prediction.labels, int(place)) if few else ""
            marks.append(Point(float(x), float(y), colours[place], text))
        return marks


def _colour(row: npt.NDArray[np.uint8]) -> Colour:
    red, green, blue = (int(part) for part in row)
    return red, green, blue


def _named(labels: tuple[str, ...], place: int) -> str:
    return labels[place] if place < len(labels) else str(place)


def _prediction(task: Task, row: Array, raw: Array, spot: ImagePlacement | None) -> Prediction:
    points = row[:, :2].astype(np.float32)
    if spot is not None:
        (rows, columns), (top, left) = spot.scale, spot.box[:2]
        points = ((points - (left, top)) / (columns, rows) + spot.origin[::-1]).astype(np.float32)
    value = Keypoints(points, row[:, 2].astype(np.float32))
    return Prediction(task.name, task.kind, value, labels=task.labels, finite=is_finite(raw))


def _require_count(task: Task, count: int, what: str) -> None:
    if count and task.options.sigmas and len(task.options.sigmas) != count:
        raise TaskError(
            f"task {task.name!r} has {len(task.options.sigmas)} sigmas for {count} {what}; give one per point"
        )


KIND = KeypointKind()
