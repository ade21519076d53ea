"""Rotations, judged by the angle between them: the geodesic distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.base import CalibrationKind, Floats, Labels, Metric, Outputs, Usual
from mtl_deploy.calibration.kinds.cells import BETWEEN, known, number_array, numbers, require_numbers
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.kinds.rotation.kind import matrices
from mtl_deploy.runtime.kinds.rotation.matrices import angles, apart, from_angles, nearest

ANGLES = ("yaw", "pitch", "roll")
_EXACT = 0.01  # by how much the product of a label's matrix and its transpose may differ from the identity


class Rotation(CalibrationKind):
    """Labels are ``(N, 9) float64``, matrices row by row."""

    metrics = {
        "geodesic": Metric("mean geodesic error", share=False, lower_is_better=True),
        **{
            f"mae_{name}": Metric(f"mean absolute error of {name}", share=False, lower_is_better=True)
            for name in ANGLES
        },
    }

    def unit(self, task: Task) -> str:
        return "degrees"

    # ---- labels

    def column_forms(self, task: Task) -> tuple[tuple[str, ...], ...]:
        return tuple(f"{task.name}.{name}" for name in ANGLES), (task.name,)

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        turned = [BETWEEN in cell for cell in cells]
        found = np.full((len(cells), 9), np.nan)
        problems: dict[int, str] = {}
        for width, chosen in (
            (3, [i for i, each in enumerate(turned) if each]),
            (9, [i for i, each in enumerate(turned) if not each]),
        ):
            texts = [" ".join(filter(None, cells[place].split(BETWEEN))) for place in chosen]
            rows, wrong = numbers(task, texts, width, comma=comma)
            problems |= {chosen[place]: reason for place, reason in wrong.items()}
            found[chosen] = from_angles(rows).reshape(-1, 9) if width == 3 else rows
        for place in np.flatnonzero(known(found) & ~_are_rotations(found)).tolist():
            problems[place] = f"{task.name} {cells[place]!r} is no rotation matrix"
            found[place] = np.nan
        return found, problems

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        require_numbers(array, where, or_text=False)
        if array.shape[1:] not in ((3, 3), (9,), (3,)):
            raise ImageError(
                f"{where}: shape {array.shape}; rotations are matrices (N, 3, 3) or (N, 9), or yaw, pitch "
                "and roll (N, 3) in degrees"
            )
        values = number_array(array, where).reshape(len(array), -1)
        found = from_angles(values).reshape(-1, 9) if values.shape[1] == 3 else values
        if not _are_rotations(found)[known(found)].all():
            raise ImageError(f"{where}: holds matrices that are no rotations: orthogonal, with determinant 1")
        return found

    # ---- answers

    def rotations(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        """Return the rotation matrices ``(N, 3, 3)`` that outputs stand for, as the runtime has them."""
        return nearest(matrices(task, outputs.astype(np.float64), decoded=decoded))

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        return angles(self.rotations(task, outputs, decoded))

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        errors = apart(self.rotations(task, outputs, decoded), labels.reshape(-1, 3, 3))
        return np.where(known(labels), np.where(np.isnan(errors), np.inf, errors), np.nan)

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        turned = self.values(task, outputs, decoded) - angles(labels.reshape(-1, 3, 3))
        errors = np.abs((turned + 180) % 360 - 180)  # on the circle
        errors = np.where(np.isnan(errors), np.inf, errors).mean(axis=0)
        found = {"geodesic": float(self.per_image(task, outputs, labels, decoded).mean())}
        return found | {f"mae_{name}": float(error) for name, error in zip(ANGLES, errors, strict=True)}

    def differences(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        ours, theirs = (self.rotations(task, each, decoded) for each in (found, expected))
        return apart(ours, theirs)[:, None]

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        truth = labels.reshape(-1, 3, 3)
        mean: Any = nearest(truth.mean(axis=0, keepdims=True))
        losses = apart(np.broadcast_to(mean, truth.shape), truth)
        if losses.max() < 1e-6:
            return None
        shown = ", ".join(f"{name} {angle:.3g}" for name, angle in zip(ANGLES, angles(mean)[0], strict=True))
        return Usual(
            f"always answering {shown} degrees, the mean rotation",
            losses,
            losses.mean(),
            "mean geodesic error",
            " degrees",
        )


def _are_rotations(rows: Floats) -> np.ndarray[Any, np.dtype[np.bool_]]:
    with np.errstate(invalid="ignore"):
        r = rows.reshape(-1, 3, 3)
        orthogonal = np.abs(r @ r.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) <= _EXACT
        return np.asarray(orthogonal & (np.linalg.det(r) > 0))


KIND = Rotation()
