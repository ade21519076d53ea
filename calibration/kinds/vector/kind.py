"""Named values, judged by the mean absolute error; points by the distance, normalised where the task says by what.

Coordinates are judged in the image's own pixels, whatever size a network takes. Source of the normalised mean error: Sagonas et
al.: 300 Faces in-the-Wild Challenge, ICCV Workshops 2013: the mean distance of an image's points over the distance of two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl_deploy.calibration.kinds.base import Array, Floats, Labels, Metric, Outputs, Usual
from mtl_deploy.calibration.kinds.cells import EMPTY, known, numbers
from mtl_deploy.calibration.kinds.values import MAE, ValueKind
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.vector.fields import (
    common_unit,
    factors,
    is_mixed,
    options_of,
    points_of,
    shifts,
    value_names,
    value_units,
)

from .coco import coco_points
from .truth import Truth, in_cells, placed, truth_of

LISTED = 16
"""Up to this many values each has its own error in the table."""
_SHOWN = 4
_RELATIVE = "of its spread"


class Vector(ValueKind):
    """Labels are ``(N, size)``; of a task with a frame ``(N, size + 5)``, see :mod:`.truth`."""

    metrics = {
        "mae": MAE,
        "nme": Metric("normalised mean error", share=False, lower_is_better=True, has_unit=False),
        "spread_error": Metric("mean error over the labels' spread", share=False, lower_is_better=True, has_unit=False),
        "point_distance": Metric("mean distance of points", share=False, lower_is_better=True),
    }
    corrects_mean = True

    def main_of(self, task: Task) -> str:
        if options_of(task).normaliser is not None:
            return "nme"
        return "spread_error" if is_mixed(task) else "mae"

    def unit(self, task: Task) -> str | None:
        return _RELATIVE if is_mixed(task) else common_unit(task)

    def unit_of_differences(self, task: Task, labels: Labels | None) -> str | None:
        frame = options_of(task).frame
        if frame is None or is_mixed(task) or (labels is not None and truth_of(task, labels).way is not None):
            return self.unit(task)
        return "pixels of the network's input" if frame == "input" else "of the input's side"

    def mismatch(self, task: Task, other: Task) -> str | None:
        one, two = value_names(task), value_names(other)
        if len(one) != len(two):
            return f"{len(one)} values and {len(two)}"
        for word, ours, theirs in (("names", one, two), ("units", value_units(task), value_units(other))):
            if ours != theirs:
                place = next(i for i in range(len(ours)) if ours[i] != theirs[i])
                return f"different {word}: value {place} is {ours[place]!r} in the first and {theirs[place]!r} in the second"
        by, by_other = options_of(task).normaliser, options_of(other).normaliser
        return None if by == by_other else f"normaliser {_normaliser_text(by)} and {_normaliser_text(by_other)}"

    # ---- labels

    def column_forms(self, task: Task) -> tuple[tuple[str, ...], ...]:
        named = options_of(task).names or options_of(task).order
        several = tuple(f"{task.name}.{name}" for name in value_names(task)) if named else ()
        return (several, (task.name,)) if several else ((task.name,),)

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        width = self.width(task)
        found, problems = numbers(task, [in_cells(cell) for cell in cells], width, comma=comma)
        for place in problems:
            parts = [part for part in in_cells(cells[place]).split() if part.lower() not in EMPTY]
            if len(parts) < width:
                problems[place] = f"{task.name} has {len(parts)} of {width} values"
        for place in np.flatnonzero(known(found) & ~_has_length(task, found)).tolist():
            problems[place] = f"{task.name}: {_ONE_POINT}"
            found[place] = np.nan
        return found, problems

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        width = self.width(task)
        if array.ndim == 3 and array.shape[1] * array.shape[2] == width:
            array = array.reshape(len(array), width)
        found = super().from_array(task, array, where).reshape(len(array), width)
        if not _has_length(task, found)[known(found)].all():
            raise ImageError(f"{where}: {_ONE_POINT}")
        return found

    def from_files(
        self, task: Task, folder: Path, root: Path, images: Sequence[Path]
    ) -> tuple[Labels | None, tuple[str, ...]]:
        file = folder / f"{task.name}.json"
        return coco_points(task, file, root, images) if file.is_file() else (None, ())

    def placed(self, task: Task, labels: Labels, placements: Sequence[ImagePlacement]) -> Labels:
        return placed(task, labels, placements)

    def comparable(self, task: Task, labels: Labels) -> Labels:
        return truth_of(task, labels).values

    # ---- answers

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        found = outputs.astype(np.float64)
        return found if decoded else found * factors(task) + shifts(task)

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        main, truth = self.main_of(task), truth_of(task, labels)
        errors = self._errors(task, outputs, truth, decoded)
        if main == "nme":
            found = _distances(task, errors).mean(axis=1) / _normaliser(task, truth)
        elif main == "spread_error":
            found = (errors / _spread(truth.values[known(labels)])).mean(axis=1)
        else:
            found = errors.mean(axis=1)
        return np.where(known(labels), np.where(np.isnan(found), np.inf, found), np.nan)

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        errors = self._errors(task, outputs, truth_of(task, labels), decoded)
        errors = np.where(np.isnan(errors), np.inf, errors)
        found = {self.main_of(task): float(self.per_image(task, outputs, labels, decoded).mean())}
        names, mixed = value_names(task), is_mixed(task)
        if not mixed:
            found["mae"] = float(errors.mean())
            if points_of(names):
                found["point_distance"] = float(_distances(task, errors).mean())
        if 1 < len(names) <= LISTED:
            for name, unit, error in zip(names, value_units(task), errors.mean(axis=0), strict=True):
                found[f"mae:{name}{f' ({unit})' if mixed and unit else ''}"] = float(error)
        return found

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        truth = truth_of(task, labels)
        middle = np.median(truth.in_network(task), axis=0)
        losses = self.per_image(task, np.tile(middle, (len(labels), 1)), labels, True)
        if not losses.any():
            return None
        metric = self.metrics[self.main_of(task)]
        unit = self.unit(task) if metric.has_unit else None
        shown = ", ".join(f"{value:.4g}" for value in middle[:_SHOWN]) + (", ..." if len(middle) > _SHOWN else "")
        return Usual(
            f"always answering {shown}, the median", losses, losses.mean(), metric.name, f" {unit}" if unit else ""
        )

    def differences(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        answers = [self.values(task, each, decoded) for each in (found, expected)]
        apart = np.abs(answers[0] - answers[1])
        return apart / _spread(answers[1]) if is_mixed(task) else apart

    def differences_on(
        self, task: Task, found: Outputs, expected: Outputs, labels: Labels | None, decoded: bool
    ) -> Floats:
        truth = None if labels is None else truth_of(task, labels)
        if truth is None or truth.way is None or is_mixed(task):
            return self.differences(task, found, expected, decoded)
        answers = [truth.in_image(task, self.values(task, each, decoded)) for each in (found, expected)]
        return np.abs(answers[0] - answers[1])

    def weight(self, task: Task, expected: Outputs) -> Floats | float:
        return 1 / _spread(expected.astype(np.float64)) if is_mixed(task) else 1.0

    def spread_rows(self, task: Task, expected: Array, found: Array) -> Floats:
        one, other = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (expected, found))
        return np.column_stack([np.abs(one - other), one])

    def relative(self, task: Task, rows: Floats) -> float:
        errors, values = np.hsplit(rows, 2)
        return float((errors.mean(axis=0) / _spread(values)).mean())

    def _errors(self, task: Task, outputs: Outputs, truth: Truth, decoded: bool) -> Floats:
        """Return each value's absolute error ``(N, size)``, of coordinates in the image's pixels."""
        with np.errstate(invalid="ignore"):
            return np.abs(truth.in_image(task, self.values(task, outputs, decoded)) - truth.values)


def _normaliser_text(said: object) -> str:
    return ", ".join(said) if isinstance(said, tuple) else str(said or "none")


def _distances(task: Task, errors: Floats) -> Floats:
    """Return each point's error ``(N, points)``."""
    places = np.array(list(points_of(value_names(task)).values()))
    return np.hypot(errors[:, places[:, 0]], errors[:, places[:, 1]])


def _normaliser(task: Task, truth: Truth) -> Floats:
    """Return what each image's error is divided by, ``(N,)``."""
    said = options_of(task).normaliser
    if isinstance(said, tuple):
        points = points_of(value_names(task))
        (x, y), (other_x, other_y) = (points[name] for name in said)
        return np.hypot(truth.values[:, x] - truth.values[:, other_x], truth.values[:, y] - truth.values[:, other_y])
    if said == "image":
        if truth.size is None:
            raise ImageError(
                f"task {task.name!r}: normaliser image needs the images' sizes; give images, not labels alone"
            )
        return truth.size
    return np.full(len(truth.values), 1.0 if said is None else float(said))


_ONE_POINT = "the two points of the normaliser are at one place"


def _has_length(task: Task, values: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if not isinstance(options_of(task).normaliser, tuple):
        return np.ones(len(values), np.bool_)
    return np.asarray(_normaliser(task, Truth(values)) > 0, np.bool_)


def _spread(values: Floats) -> Floats:
    """Return each value's mean deviation from its median, ``(size,)``; 1 where it has none."""
    found = np.abs(values - np.median(values, axis=0)).mean(axis=0)
    return np.where(found > 0, found, 1.0)


KIND = Vector()
