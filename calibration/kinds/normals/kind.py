"""Maps of unit vectors, judged by the mean angle.

Source: Eigen, Fergus: Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale Architecture, ICCV 2015: mean
angular error and the shares within 11.25, 22.5 and 30 degrees.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats, Metric
from mtl_deploy.calibration.kinds.dense import Picture, ValueMapKind, VariedNumbers, require_form
from mtl_deploy.runtime.bundle.tasks import Task

ANGLES = (11.25, 22.5, 30.0)  # degrees


class Normals(ValueMapKind):
    """A row is ``(5,)``: number of pixels, sum of angles in degrees, pixels within each of :data:`ANGLES`."""

    metrics = {
        "mean_angle": Metric("mean angular error", share=False, lower_is_better=True),
        **{f"within_{limit:g}": Metric(f"within {limit:g} degrees") for limit in ANGLES},
    }
    least = 10.0
    channels = 3

    def unit(self, task: Task) -> str:
        return "degrees"

    def from_pixels(self, task: Task, pixels: Picture, file: Path) -> Picture:
        return np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)  # the usual encoding

    def checked(self, task: Task, truth: Picture, where: str) -> tuple[Picture, Any]:
        require_form(task, truth, (3,), "iuf", "numbers", where)
        values = truth.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            length = np.linalg.norm(values, axis=-1, keepdims=True)
            values = np.where(length > 0.1, values / length, np.float32(np.nan))
        return values, np.float32(np.nan)

    def row(self, task: Task, answer: Picture, truth: Picture) -> Floats:
        present = np.isfinite(truth).all(axis=-1)
        angle = angles(answer[present], truth[present])
        return np.array([angle.size, angle.sum(), *((angle <= limit).sum() for limit in ANGLES)], np.float64)

    def total(self, task: Task, sums: Floats) -> dict[str, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels, *others = np.moveaxis(sums, -1, 0)
            angle, *shares = (one / pixels for one in others)
            return {"mean_angle": angle} | {f"within_{limit:g}": s for limit, s in zip(ANGLES, shares, strict=True)}

    def distances(self, task: Task, answer: Picture, reference: Picture) -> Floats:
        return angles(answer, reference)

    def variation(self, task: Task) -> VariedNormals:
        return VariedNormals(3)


class VariedNormals(VariedNumbers):
    """How much directions vary."""

    @property
    def ignoring(self) -> float:
        """The angle to the mean direction, in degrees."""
        return float(np.degrees(np.arccos(np.clip(np.linalg.norm(self.means), 0, 1))))


def angles(one: Picture, other: Picture) -> Floats:
    """Return the angles in degrees between unit vectors ``(..., 3)``; infinite where a component is NaN.

    It takes the arcsine of half the chord, which is exact for small angles; the arccosine of the dot product is not.
    """
    half = np.linalg.norm(one.astype(np.float64) - other.astype(np.float64), axis=-1) / 2
    found: Floats = np.degrees(2 * np.arcsin(np.clip(half, 0, 1)))
    return np.where(np.isnan(half), np.inf, found)


KIND = Normals()
