"""Yes or no, judged by accuracy."""

from __future__ import annotations

from mtl_deploy.calibration.kinds.classes import ClassKind
from mtl_deploy.runtime.bundle.tasks import Task


class Binary(ClassKind):
    """Two classes, whether the network has one output for them or two."""

    least = 0.1

    def classes(self, task: Task) -> int:
        return 2

    def same_size(self, task: Task, other: Task) -> bool:
        return True


KIND = Binary()
