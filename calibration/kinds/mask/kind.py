"""Masks, judged by the intersection over union of the pixels that they mark, over all images together.

Source: scikit-learn's ``jaccard_score`` and ``f1_score`` of the positive class, of all pixels whose truth is known; the latter is
also called Dice's coefficient.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.base import Array, Floats, Metric, Usual
from mtl_deploy.calibration.kinds.dense import DenseKind, Picture, require_form
from mtl_deploy.calibration.kinds.segmentation.kind import VariedClasses
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, MtlWarning
from mtl_deploy.runtime.files.arrays import read_array
from mtl_deploy.runtime.files.reading import DocumentError
from mtl_deploy.runtime.images.files import label_pixels

UNKNOWN = 255
LOOKED_AT = 16  # maps of a folder that tell whether 255 is the mask


class Mask(DenseKind):
    """A row is ``(4,)``: pixels that both the answer and the truth mark, those of the answer, those of the truth, all known."""

    metrics = {"iou": Metric("IoU"), "dice": Metric("Dice"), "pixel_accuracy": Metric("pixel accuracy")}
    chooses = True
    least = 0.1

    def unit(self, task: Task) -> str | None:
        return None

    def classes(self, task: Task) -> int:
        return 2

    def same_size(self, task: Task, other: Task) -> bool:
        return True  # one channel and two answer alike

    def from_pixels(self, task: Task, pixels: Picture, file: Path) -> Picture:
        if pixels.dtype == np.bool_:
            return pixels
        if pixels.ndim != 2:
            return pixels
        _require_two(pixels, f"{file}: holds", "picture")
        return _marked(pixels, file)

    def from_numbers(self, task: Task, numbers: Array, file: Path) -> Array:
        if numbers.dtype.kind not in "iu":
            return numbers
        _require_two(numbers, f"{file}: task {task.name!r} holds", "array")
        return _marked(numbers, file)

    def checked(self, task: Task, truth: Picture, where: str) -> tuple[Picture, Any]:
        require_form(task, truth, (), "iub", "0 and 1", where)
        values: Picture = truth.astype(np.int32)
        values[(values < 0) | (values > 1)] = -1
        return values, np.int32(-1)

    def row(self, task: Task, answer: Picture, truth: Picture) -> Floats:
        known = truth >= 0
        said, true = answer[known] == 1, truth[known] == 1
        return np.array([(said & true).sum(), said.sum(), true.sum(), known.sum()], np.float64)

    def total(self, task: Task, sums: Floats) -> dict[str, Floats]:
        both, said, true, pixels = np.moveaxis(sums, -1, 0)
        union = said + true - both
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {
                "iou": np.where(union > 0, both / union, 1.0),  # nothing to mark, and nothing marked
                "dice": np.where(union > 0, 2 * both / (said + true), 1.0),
                "pixel_accuracy": 1 - (union - both) / pixels,
            }
        return {key: np.where(pixels > 0, value, np.nan) for key, value in found.items()}

    def distances(self, task: Task, answer: Picture, reference: Picture) -> Floats:
        return np.asarray(answer != reference, np.float64)

    def apart(self, task: Task, answer: Picture, reference: Picture) -> tuple[float, float]:
        mean = float(self.distances(task, answer, reference).mean())
        return mean, mean

    def variation(self, task: Task) -> VariedClasses:
        return VariedClasses(2)

    def spread_row(self, task: Task, expected: Picture, found: Picture) -> Floats:
        return np.array([np.mean(expected != found), np.mean(expected == 1)])

    def relative(self, task: Task, rows: Floats) -> float:
        error, marked = (float(mean) for mean in rows.mean(axis=0))
        return error / (2 * marked * (1 - marked) or 1.0)

    def same_answer(self, task: Task, rows: Floats) -> str | None:
        _, said, true, pixels = rows.sum(axis=0)
        if (said == 0 and true == 0) or (said == pixels and true == pixels):
            return None
        return f" ({'all' if said else 'nothing'} is {_called(task)})"

    def usual_rows(self, task: Task, rows: Floats) -> Usual | None:
        true, pixels = rows[:, 2], rows[:, 3]
        if not 0 < true.sum() < pixels.sum():
            return None
        found = np.stack([true, pixels, true, pixels], axis=1)
        room = 1 - self.measured(task, found)["iou"]
        return Usual(f"calling every pixel {_called(task)}", found, room, "IoU", " points")


def _require_two(values: Array, holds: str, form: str) -> None:
    odd = values[(values > 1) & (values != UNKNOWN)]
    if odd.size:
        raise ImageError(
            f"{holds} {int(odd.flat[0])}; a mask's {form} holds 0 and 1 with 255 where it is not known, or 0 and 255"
        )


def _called(task: Task) -> str:
    return f"'{task.labels[-1]}'" if task.labels else "mask"


def _marked(values: Array, file: Path) -> Array:
    """Return a label map as it is, or where 255 marks the mask, as booleans."""
    if file.suffix.lower() == ".npz":
        white = _said(file) if _white([values]) else False
    else:
        white = _folder_is_white(file.parent, file.suffix)
    return np.asarray(values == UNKNOWN) if white else values


@lru_cache(maxsize=64)
def _folder_is_white(folder: Path, suffix: str) -> bool:
    files = sorted(folder.glob(f"*{suffix}"))
    return _white(map(_read, files[:: -(-len(files) // LOOKED_AT) or 1])) and _said(folder)


def _white(maps: Iterable[Array | None]) -> bool:
    """Return whether maps mark with 255: none holds a 1, and one has a 255."""
    white = False
    for values in maps:
        if values is None:
            continue
        if (values == 1).any():
            return False
        white |= bool((values == UNKNOWN).any())
    return white


def _said(where: Path) -> bool:
    warnings.warn(
        f"{where}: its masks hold 0 and 255, so 255 is the mask; if 255 means that it is not known, write 1 where there is "
        "something to mark",
        MtlWarning,
        stacklevel=2,
    )
    return True


def _read(file: Path) -> Array | None:
    try:
        return read_array(file) if file.suffix.lower() == ".npy" else label_pixels(file)
    except (ImageError, OSError, DocumentError):
        return None  # it is named when it is used


KIND = Mask()
