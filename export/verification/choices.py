"""Which class an output chooses, and which outputs are judged by how sure the network is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

from .expected import Outputs


def chooses(task: Task, signature: Signature) -> bool:
    """Return whether a task's output holds class indices."""
    return signature.outputs == "decoded" and task.kind == "segmentation" and task.argmax


def has_margins(task: Task, signature: Signature) -> bool:
    """Return whether errors of a task's output are judged by how sure the network is (:func:`.expected.margins`)."""
    return chooses(task, signature) or (signature.outputs == "decoded" and task.kind == "normals")


def classes(task: Task, values: Outputs, decoded: bool) -> npt.NDArray[Any]:
    """Return the class that each row of values, or each pixel, chooses; for a binary task, whether it is the positive one.

    Args:
        task: a classification or segmentation.
        values: ``(N, size)``; for a segmentation ``(N, size, h, w)``, or the indices themselves.
        decoded: whether they are probabilities or, for a segmentation, what a decoded graph gives; otherwise they are the
            network's own outputs.
    """
    if task.kind == "segmentation" and decoded and task.argmax:
        return values
    if task.kind != "binary":
        return np.asarray(values.argmax(axis=1))
    if decoded or task.gives_probabilities:
        return np.asarray(values[:, -1] >= task.threshold)
    threshold = np.log(task.threshold / (1 - task.threshold))
    return np.asarray((values[:, -1] - values[:, 0] if values.shape[1] > 1 else values[:, 0]) >= threshold)
