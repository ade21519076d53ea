"""A kind that the toolkit does not have, in the runtime: where a spot is in the image, and how sure the network is of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.drawing import Mark, Point


@dataclass(frozen=True)
class SpotOptions:
    """The fields that only this kind has."""

    grid: tuple[float, float] = option({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
    centre: str = option({"enum": ["corner", "middle"]}, default="corner")
    least: float = option({"type": "number"}, default=0.5, form="write a probability")

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise TaskError(f"least {self.least:g} is no probability")


@dataclass(frozen=True)
class Spot:
    """A place in the image's own pixels, and its probability."""

    x: float
    y: float
    score: float


class SpotKind(Kind):
    name = "spot"
    called = "a spot"
    takes = frozenset(("unit",))
    options = SpotOptions
    most_outputs = 2
    example = "spot;grid=32,32"

    def check_size(self, task: Task, size: int) -> None:
        if size != 3:
            raise TaskError(
                f"task {task.name!r} is a spot but the network returns {size} values; it needs x, y and a score"
            )

    def decode(
        self, task: Task, output: Any, form: str, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        found = []
        for number, row in enumerate(output.astype(np.float64)):
            x, y, score = row if form == "decoded" else decoded(task, row)
            if placements is not None:
                top, left, height, width = placements[number].box
                rows, columns = placements[number].original
                x, y = (x - left) * columns / width, (y - top) * rows / height
            value = Spot(float(x), float(y), float(score))
            found.append(Prediction(task.name, task.kind, value, unit=task.unit, finite=is_finite(row)))
        return found

    def words(self, prediction: Prediction) -> str:
        spot = prediction.value
        return f"({spot.x:.1f}, {spot.y:.1f}), {100 * spot.score:.0f} %"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        spot = prediction.value
        return {"x": json_number(spot.x), "y": json_number(spot.y), "score": json_number(spot.score)}

    def same(self, one: Any, other: Any) -> bool:
        return bool(one == other)

    def marks(self, task: Task, prediction: Prediction) -> Sequence[Mark]:
        spot = prediction.value
        return [Point(spot.x, spot.y, (255, 0, 0))] if spot.score >= task.options.least else []


def decoded(task: Task, row: Any) -> tuple[float, float, float]:
    """Return x and y in the network's input, and the probability."""
    x, y, score = (1 / (1 + math.exp(-value)) for value in row)
    width, height = task.options.grid
    return width * x, height * y, score


KIND = SpotKind()
