"""Which kinds of tasks can be calibrated and judged: one line each."""

from __future__ import annotations

from dataclasses import replace

from mtl_deploy.runtime.bundle.kinds.registry import held
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

from .base import CalibrationKind, Metric

KINDS: dict[str, str] = {
    "regression": "mtl_deploy.calibration.kinds.regression.kind",
    "binary": "mtl_deploy.calibration.kinds.binary.kind",
    "multiclass": "mtl_deploy.calibration.kinds.multiclass.kind",
    "multilabel": "mtl_deploy.calibration.kinds.multilabel.kind",
    "distribution": "mtl_deploy.calibration.kinds.distribution.kind",
    "ordinal": "mtl_deploy.calibration.kinds.ordinal.kind",
    "segmentation": "mtl_deploy.calibration.kinds.segmentation.kind",
    "depth": "mtl_deploy.calibration.kinds.depth.kind",
    "normals": "mtl_deploy.calibration.kinds.normals.kind",
    "mask": "mtl_deploy.calibration.kinds.mask.kind",
    "keypoints": "mtl_deploy.calibration.kinds.keypoints.kind",
    "vector": "mtl_deploy.calibration.kinds.vector.kind",
    "rotation": "mtl_deploy.calibration.kinds.rotation.kind",
    "embedding": "mtl_deploy.calibration.kinds.embedding.kind",
    "raw": "mtl_deploy.calibration.kinds.raw.kind",
    "detection": "mtl_deploy.calibration.kinds.detection.kind",
}
"""By name of a kind, the module that holds it as ``KIND``. It is imported when it is first asked for."""


def named(name: str) -> CalibrationKind:
    """Return a kind by its name.

    Raises:
        TaskError: there is none, or it has no part in this room.
    """
    if name not in KINDS:
        raise TaskError(f"tasks of kind {name!r} cannot be calibrated; known kinds: {', '.join(KINDS)}")
    found: CalibrationKind = held(KINDS[name])
    return found


def kind_of(task: Task) -> CalibrationKind:
    """Return the kind of a task."""
    return named(task.kind)


def metric_of(key: str) -> Metric:
    """Return what a metric is, by its key, whichever kind has it; of an unknown one its key is the name.

    ``KEY:PART`` is the metric ``KEY`` of a part of a task, such as one of its values.
    """
    word, _, part = key.partition(":")
    for name in KINDS:
        if (found := named(name).metrics.get(word)) is not None:
            return replace(found, name=f"{found.name} of {part}") if part else found
    return Metric(key)
