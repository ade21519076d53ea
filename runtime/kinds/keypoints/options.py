"""The fields that only keypoints have: how heatmaps are decoded, what is drawn, what metrics are relative to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

Point = str | int
_POINT = {"type": ["string", "integer"]}
_PAIR = {"type": "array", "items": _POINT, "minItems": 2, "maxItems": 2}
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""Of COCO's 17 points of a person, in their order: pycocotools, ``Params.setKpParams``."""


def _one(text: str) -> Point:
    return int(text) if text.strip().isdecimal() else text.strip()


def _lines(text: str) -> list[list[Point]]:
    lines = [[_one(end) for end in line.split("-")] for line in text.split(",")]
    if any(len(line) != 2 for line in lines):
        raise ValueError(text)
    return lines


def _size(text: str) -> Any:
    return text if text in ("box", "image") else [_one(end) for end in text.split(",")]


@dataclass(frozen=True)
class KeypointOptions:
    """Fields of a task.

    Attributes:
        decoding: ``argmax``: the highest pixel of a heatmap, moved by a quarter of a pixel towards the higher neighbour along each
            axis (Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018, and HRNet). ``soft-argmax``: the
            mean position under the heatmap's softmax (Sun et al., Integral Human Pose Regression, ECCV 2018).
        beta: what heatmaps are multiplied by before that softmax.
        skeleton: pairs of points, by name or position, between which a line is drawn.
        least_score: score below which a point is not drawn.
        sigmas: of COCO's object keypoint similarity, one per point. Empty: COCO's own where there are 17 points, otherwise that
            metric is left out.
        pck_threshold: how far off a point may be to be right, as a share of ``pck_size``.
        pck_size: ``box``: the longer side of COCO's box, or of the box around the labelled points; ``image``: the image's diagonal;
            two points: their distance in the labels.
    """

    decoding: str = option(
        {"enum": ["argmax", "soft-argmax"]},
        default="argmax",
        form="write argmax or soft-argmax",
        doc="how a point is found: the heatmap's highest pixel, moved by a quarter pixel, or the mean position under a softmax",
    )
    beta: float = option(
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1e6},
        default=1.0,
        form="write a number above 0",
        doc="factor of the heatmaps before the softmax of soft-argmax",
    )
    skeleton: tuple[tuple[Point, Point], ...] = option(
        {"type": "array", "items": _PAIR, "maxItems": 4096},
        default=(),
        read=_lines,
        form="write pairs of points, such as 0-1,1-2; a name with '-' or ',' needs a task file",
        doc="lines that --show draws between two points, by name or position",
    )
    least_score: float = option(
        {"type": "number"}, default=0.0, form="write a number", doc="points with a lower score are not drawn"
    )
    sigmas: tuple[float, ...] = option(
        {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}},
        default=(),
        form="write numbers, such as 0.03,0.05",
        doc="one number per point for OKS; without it, COCO's for 17 points",
    )
    pck_threshold: float = option(
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1e3},
        default=0.2,
        form="write a share, such as 0.2",
        doc="share of pck_size within which a point counts as right",
    )
    pck_size: str | tuple[Point, Point] = option(
        {"anyOf": [{"enum": ["box", "image"]}, _PAIR]},
        default="box",
        read=_size,
        form="write box, image, or two points, such as left_hip,right_shoulder",
        doc="the size for pck_threshold: the box around the labelled points, the image's diagonal, or the distance of two points",
    )

    def __post_init__(self) -> None:
        """Refuse what is no number.

        Raises:
            TaskError: a number is NaN or infinite.
        """
        for name in ("beta", "least_score", "pck_threshold"):
            if not math.isfinite(getattr(self, name)):
                raise TaskError(f"{name} {getattr(self, name):g} is no number")


def position(task: Task, point: Point) -> int:
    """Return a point's position among the heatmaps.

    Raises:
        TaskError: there is no such point, as far as names or the size tell.
    """
    if isinstance(point, str):
        if point in task.labels:
            return task.labels.index(point)
        names = f"the points are {', '.join(task.labels)}" if task.labels else "the points have no names: give labels"
        raise TaskError(f"task {task.name!r}: there is no point {point!r}; {names}")
    count = len(task.labels) or task.size
    if point < 0 or (count and point >= count):
        raise TaskError(f"task {task.name!r}: there is no point {point}; they are 0 to {count - 1}")
    return point


def sigmas(task: Task) -> tuple[float, ...]:
    """Return each point's sigma; empty where they are not known."""
    given: tuple[float, ...] = task.options.sigmas
    return given or (COCO_SIGMAS if task.size == len(COCO_SIGMAS) else ())
