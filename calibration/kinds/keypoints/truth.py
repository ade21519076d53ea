"""The labels of keypoints as rows of numbers: points in the image's frame, what distances are relative to, the way to the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.keypoints.options import position

Floats = npt.NDArray[np.float64]
BESIDE = 9  # numbers of a row behind its points: area, sides of the box; the image's sides; left, top and scale of its placement


@dataclass(frozen=True)
class Truth:
    """Labels of some images, taken apart.

    Attributes:
        points: ``(N, K, 2)``, in the image's pixels.
        labelled: ``(N, K) bool``.
        area: ``(N,)``, in the image's square pixels.
        box: ``(N, 2)``: its width and height.
        image: ``(N, 2)``: width and height.
        corner: ``(N, 2)``: left and top of the image in the network's input.
        scale: ``(N, 2)``: the input's pixels per pixel of the image, along x and y.
    """

    points: Floats
    labelled: npt.NDArray[np.bool_]
    area: Floats
    box: Floats
    image: Floats
    corner: Floats
    scale: Floats

    @classmethod
    def of(cls, rows: Floats) -> Truth:
        """Take rows ``(N, 3 K + 9)`` apart."""
        points = rows[:, :-BESIDE].reshape(len(rows), -1, 3)
        area, box, image, corner, scale = np.split(rows[:, -BESIDE:], (1, 3, 5, 7), axis=1)
        return cls(points[..., :2], points[..., 2] > 0, area[:, 0], box, image, corner, scale)

    def in_image(self, places: Floats) -> Floats:
        """Return places ``(N, K, 2)`` in the network's input as places in the images."""
        found: Floats = (places - self.corner[:, None]) / self.scale[:, None]
        return found

    def size(self, task: Task) -> Floats:
        """Return what the distances of each image are relative to, ``(N,)`` pixels; 0 where it is not known."""
        given = task.options.pck_size
        if given == "image":
            return np.asarray(np.hypot(*self.image.T))
        if given == "box":
            return np.asarray(self.box.max(axis=1))
        first, second = (position(task, point) for point in given)
        apart = np.linalg.norm(self.points[:, first] - self.points[:, second], axis=1)
        return np.where(self.labelled[:, first] & self.labelled[:, second], apart, 0.0)


def rows_of(points: Floats, area: Floats | None = None, box: Floats | None = None) -> Floats:
    """Return rows that are not placed yet.

    Args:
        points: ``(N, K, 3)``: x, y and whether there is a label, 0 or not; in the image's pixels.
        area: ``(N,)``; NaN, or None: that of the box.
        box: ``(N, 2)``: width and height; NaN, or None: those of the box around the labelled points.

    Returns:
        ``(N, 3 K + 9)``; NaN where an image has no point with a label.
    """
    labelled = points[..., 2] > 0
    around = np.zeros((len(points), 2))
    some = labelled.any(axis=1)
    for end, sign in ((np.max, 1), (np.min, -1)):
        empty = -sign * np.inf
        ends = end(np.where(labelled[..., None], points[..., :2], empty), axis=1)
        around[some] += sign * ends[some]
    box = around if box is None else np.where(np.isnan(box), around, box)
    area = np.full(len(points), np.nan) if area is None else area
    area = np.where(np.isnan(area), box.prod(axis=1), area)
    kept = np.where(labelled[..., None], points, 0.0)
    found = np.concatenate([kept.reshape(len(points), -1), area[:, None], box, np.zeros((len(points), 6))], axis=1)
    found[~some] = np.nan
    return found


def place_rows(task: Task, rows: Floats, placements: Sequence[ImagePlacement]) -> Floats:
    """Return rows with each image's size and placement.

    Points that a crop cut off have no label then, and an image whose distances are relative to nothing has none at all.
    """
    found = rows.copy()
    for row, spot in zip(found, placements, strict=True):
        (height, width), (top, left), (rows_scale, columns_scale) = spot.original, spot.box[:2], spot.scale
        row[-6:] = np.where(np.isnan(row[0]), np.nan, (width, height, left, top, columns_scale, rows_scale))
        points = row[:-BESIDE].reshape(-1, 3)
        x, y = left + points[:, 0] * columns_scale, top + points[:, 1] * rows_scale
        if spot.cropped:
            points[(x < 0) | (y < 0) | (x >= spot.input[1]) | (y >= spot.input[0])] *= 0
    truth = Truth.of(found)
    with np.errstate(invalid="ignore"):
        judged = truth.labelled.any(axis=1) & (truth.size(task) > 0)
    found[~judged] = np.nan
    return found
