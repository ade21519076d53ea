"""Which kinds of tasks can be exported: one line each."""

from __future__ import annotations

from mtl_deploy.runtime.bundle.kinds.registry import held
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

from .base import ExportKind

KINDS: dict[str, str] = {
    "regression": "mtl_deploy.export.kinds.regression.kind",
    "binary": "mtl_deploy.export.kinds.binary.kind",
    "multiclass": "mtl_deploy.export.kinds.multiclass.kind",
    "multilabel": "mtl_deploy.export.kinds.multilabel.kind",
    "distribution": "mtl_deploy.export.kinds.distribution.kind",
    "ordinal": "mtl_deploy.export.kinds.ordinal.kind",
    "segmentation": "mtl_deploy.export.kinds.segmentation.kind",
    "depth": "mtl_deploy.export.kinds.depth.kind",
    "normals": "mtl_deploy.export.kinds.normals.kind",
    "mask": "mtl_deploy.export.kinds.mask.kind",
    "keypoints": "mtl_deploy.export.kinds.keypoints.kind",
    "vector": "mtl_deploy.export.kinds.vector.kind",
    "rotation": "mtl_deploy.export.kinds.rotation.kind",
    "embedding": "mtl_deploy.export.kinds.embedding.kind",
    "raw": "mtl_deploy.export.kinds.raw.kind",
    "detection": "mtl_deploy.export.kinds.detection.kind",
}
"""By name of a kind, the module that holds it as ``KIND``. It is imported when it is first asked for."""


def kind_of(task: Task) -> ExportKind:
    """Return the kind of a task.

    Raises:
        TaskError: it has no part in this room.
    """
    if task.kind not in KINDS:
        raise TaskError(
            f"task {task.name!r}: tasks of kind {task.kind!r} cannot be exported; known kinds: {', '.join(KINDS)}"
        )
    found: ExportKind = held(KINDS[task.kind])
    return found
