"""Points of one object per image, judged by the percentage of correct keypoints, and by COCO's similarity where sigmas are known.

Points are compared in the image's own frame, whatever an image was stretched or cut to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from mtl_deploy.calibration.kinds.base import Array, CalibrationKind, Labels, Metric, Outputs, Usual
from mtl_deploy.calibration.kinds.cells import BETWEEN, EMPTY, known, number, require_numbers
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.keypoints.heatmaps import points_of
from mtl_deploy.runtime.kinds.keypoints.options import sigmas

from .coco import read_coco
from .metrics import oks, pck
from .truth import Floats, Truth, place_rows, rows_of

_OF_PLACEMENT = 4  # numbers at the end of a row that say where the image lies in the input


class Keypoints(CalibrationKind):
    """Outputs are kept as points, ``(N, 3 K)``: x, y in the network's input, score. Labels are rows, see :mod:`.truth`."""

    metrics = {"pck": Metric("PCK"), "oks": Metric("OKS")}

    def unit(self, task: Task) -> str:
        return "pixels"

    def classes(self, task: Task) -> int | None:
        return None

    # ---- labels

    def columns(self, task: Task) -> tuple[str, ...]:
        names = task.labels or tuple(map(str, range(task.size)))
        return tuple(f"{task.name}.{name}.{axis}" for name in names for axis in "xy")

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        columns = self.columns(task)
        points = np.zeros((len(cells), len(columns) // 2, 3))
        problems: dict[int, str] = {}
        for row, cell in enumerate(cells):
            found, problem = _row(columns, cell.split(BETWEEN), comma=comma)
            if problem:
                problems[row] = problem
            else:
                points[row] = found
        return rows_of(points), problems

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        require_numbers(array, where, or_text=False)
        if array.ndim != 3 or array.shape[1] != task.size or array.shape[2] not in (2, 3):
            raise ImageError(
                f"{where}: shape {array.shape}; expected (N, {task.size}, 2), x and y in the image's pixels, or "
                f"(N, {task.size}, 3) with COCO's visibility, 0 where a point has no label"
            )
        points = np.zeros((*array.shape[:2], 3))
        points[..., :2] = array[..., :2]
        points[..., 2] = np.isfinite(array).all(axis=2) & (array[..., 2] > 0 if array.shape[2] == 3 else True)
        return rows_of(points)

    def from_files(
        self, task: Task, folder: Path, root: Path, images: Sequence[Path]
    ) -> tuple[Labels | None, tuple[str, ...]]:
        file = folder / f"{task.name}.json"
        return read_coco(task, file, root, images) if file.is_file() else (None, ())

    def placed(self, task: Task, labels: Labels, placements: Sequence[ImagePlacement]) -> Labels:
        return place_rows(task, cast("Floats", labels), placements)

    def comparable(self, task: Task, labels: Labels) -> Labels:
        return np.asarray(labels[:, :-_OF_PLACEMENT])

    # ---- answers

    def kept(self, task: Task, output: Array) -> Outputs:
        points = points_of(task, output) if output.ndim == 4 else output
        return points.reshape(len(points), -1)

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        return outputs.reshape(len(outputs), -1, 3)[..., :2].reshape(len(outputs), -1).astype(np.float64)

    def differences(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        apart = self.values(task, found, decoded) - self.values(task, expected, decoded)
        return np.asarray(np.linalg.norm(apart.reshape(len(apart), -1, 2), axis=2))

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        points, truth = self._in_images(task, outputs, labels)
        return np.where(known(labels), pck(task, points, truth), np.nan)

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        points, truth = self._in_images(task, outputs, labels)
        found = {"pck": float(pck(task, points, truth).mean())}
        return found | ({"oks": float(oks(points, truth, sigmas(task)).mean())} if sigmas(task) else {})

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        truth = Truth.of(cast("Floats", labels))
        shares = np.where(truth.labelled[..., None], truth.points / truth.image[:, None], np.nan)
        if not truth.labelled.any() or (np.nanstd(shares[:, truth.labelled.any(axis=0)], axis=0) == 0).all():
            return None
        middle = np.zeros(shares.shape[1:])
        seen = truth.labelled.any(axis=0)
        middle[seen] = np.nanmedian(shares[:, seen], axis=0)
        right = pck(task, middle[None] * truth.image[:, None], truth)
        answer = "always answering each point's median place in the image"
        return Usual(answer, right, float(1 - right.mean()), "PCK", " points")

    def spread_rows(self, task: Task, expected: Array, found: Array) -> Floats:
        one, other = (self.values(task, self.kept(task, each), True) for each in (expected, found))
        return np.column_stack([np.abs(one - other).mean(axis=1), one])

    def _in_images(self, task: Task, outputs: Outputs, labels: Labels) -> tuple[Floats, Truth]:
        truth = Truth.of(cast("Floats", labels))
        return truth.in_image(self.values(task, outputs, True).reshape(len(outputs), -1, 2)), truth


def _row(columns: Sequence[str], cells: Sequence[str], *, comma: bool) -> tuple[Floats, str]:
    """Return ``(K, 3)`` from x and y of each point, two empty cells where it has no label; and what is wrong, or nothing."""
    found = np.zeros((len(columns) // 2, 3))
    for place in range(len(found)):
        pair, names = cells[2 * place : 2 * place + 2], columns[2 * place : 2 * place + 2]
        empty = [cell.lower() in EMPTY for cell in pair]
        if any(empty) and not all(empty):
            return found, f"one of {names[0]} and {names[1]} is empty"
        for axis, cell in enumerate(pair if not any(empty) else ()):
            value = _number(cell, comma=comma)
            if value is None:
                return found, f"{names[axis]} {cell!r} is not a number"
            found[place, axis], found[place, 2] = value, 1
    return found, ""


def _number(cell: str, *, comma: bool) -> float | None:
    try:
        return number(cell, comma=comma)
    except ValueError:
        return None


KIND = Keypoints()
