"""Maps of numbers, judged by the root mean square error.

Source: Eigen, Puhrsch, Fergus: Depth Map Prediction from a Single Image, NIPS 2014, in the linear scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats, Metric, Usual
from mtl_deploy.calibration.kinds.dense import Picture, ValueMapKind, VariedNumbers, require_form
from mtl_deploy.calibration.kinds.values import MAE
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError


class Depth(ValueMapKind):
    """A row is ``(7,)``.

    Number of pixels, sums of absolute, squared and relative errors, pixels within a factor of 1.25, sum of the truth and of its
    square.
    An answer that is NaN or infinite counts as an infinite error.
    """

    metrics = {
        "rmse": Metric("RMSE", share=False, lower_is_better=True),
        "mae": MAE,
        "abs_rel": Metric("mean relative error", lower_is_better=True),
        "within_1.25": Metric("within a factor of 1.25"),
    }

    def from_pixels(self, task: Task, pixels: Picture, file: Path) -> Picture:
        if pixels.dtype == np.uint8:
            raise ImageError(
                f"{file}: 8 bits are too few for depth; use a 16-bit PNG in millimetres, or .npy in "
                f"{task.unit or 'the unit of the task'}"
            )
        if task.unit not in ("m", "metre", "metres", "meter", "meters", "mm", "millimetres", "millimeters"):
            raise ImageError(
                f"{file}: a PNG holds millimetres, but the task's unit is {task.unit!r}; use .npy in that unit"
            )
        return np.asarray(pixels, np.float32) / np.float32(
            1 if str(task.unit).startswith("mil") or task.unit == "mm" else 1000
        )

    def checked(self, task: Task, truth: Picture, where: str) -> tuple[Picture, Any]:
        require_form(task, truth, (), "iuf", "numbers", where)
        values = truth.astype(np.float32)
        with np.errstate(invalid="ignore"):
            values[~(np.isfinite(values) & (values > 0))] = np.nan
        return values, np.float32(np.nan)

    def row(self, task: Task, answer: Picture, truth: Picture) -> Floats:
        with np.errstate(invalid="ignore"):
            present = np.isfinite(truth) & (truth > 0)
        said, true = answer[present].astype(np.float64), truth[present].astype(np.float64)
        error = np.abs(said - true)
        error[~np.isfinite(said)] = np.inf
        with np.errstate(divide="ignore", invalid="ignore"):
            close = np.maximum(said / true, true / said) < 1.25
        close &= said > 0
        sums = [error.size, error.sum(), (error**2).sum(), (error / true).sum(), close.sum()]
        return np.array([*sums, true.sum(), (true**2).sum()], np.float64)

    def total(self, task: Task, sums: Floats) -> dict[str, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels, *others = np.moveaxis(sums, -1, 0)
            absolute, squared, relative, close = (one / pixels for one in others[:4])
            return {"rmse": np.sqrt(squared), "mae": absolute, "abs_rel": relative, "within_1.25": close}

    def distances(self, task: Task, answer: Picture, reference: Picture) -> Floats:
        with np.errstate(invalid="ignore"):
            apart = np.abs(answer.astype(np.float64) - reference.astype(np.float64))
        return np.where(np.isnan(apart), np.inf, apart)

    def variation(self, task: Task) -> VariedDepth:
        return VariedDepth(1)

    def usual_rows(self, task: Task, rows: Floats) -> Usual | None:
        pixels, total, squares = rows[:, 0], rows[:, 5], rows[:, 6]
        mean = float(total.sum() / pixels.sum())
        found = np.zeros_like(rows)
        found[:, 0] = pixels
        found[:, 2] = np.maximum(squares - 2 * mean * total + mean**2 * pixels, 0)
        figure = self.measured(task, found)["rmse"]
        if figure <= 0:
            return None
        unit = f" {task.unit}" if task.unit else ""
        return Usual(f"calling every pixel {mean:.4g}{unit}, the mean", found, figure, "RMSE", unit)


class VariedDepth(VariedNumbers):
    """How much depth varies."""

    @property
    def ignoring(self) -> float:
        """The mean deviation from the mean, computed as for a normal distribution."""
        variance = max(self.squares / max(self.count, 1) - float(self.means[0] ** 2), 0.0)
        return float(np.sqrt(2 / np.pi * variance))


KIND = Depth()
