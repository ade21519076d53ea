"""A tensor without a meaning: it has no labels, and differences are shares of its spread."""

from __future__ import annotations

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats, Outputs
from mtl_deploy.calibration.kinds.values import ValueKind
from mtl_deploy.calibration.observe.spread import spread
from mtl_deploy.runtime.bundle.tasks import Task

RELATIVE = "of its spread"


class Raw(ValueKind):
    """Differences from another network alone."""

    labelled = False

    def unit(self, task: Task) -> str:
        return RELATIVE

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        return outputs.astype(np.float64)

    def scale(self, task: Task, expected: Outputs) -> float:
        return float(np.sqrt(np.mean(spread(expected[:, :, None]) ** 2))) or 1.0


KIND = Raw()
