"""The metrics of vector tasks on images with labels; what they are says the kind of each task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import Floats, Labels, Outputs
from mtl_deploy.calibration.kinds.cells import known
from mtl_deploy.calibration.kinds.registry import kind_of, metric_of
from mtl_deploy.runtime.bundle.tasks import Task

__all__ = [
    "Floats",
    "Labels",
    "Outputs",
    "is_share",
    "lower_is_better",
    "main_metric",
    "metrics",
    "name_of",
    "per_sample",
]


def main_metric(task: Task) -> str:
    """Return the metric that budgets are about.

    It is ``mae`` for a regression, ``accuracy`` for classes, ``mean_iou`` for a segmentation, ``rmse`` for depth and ``mean_angle``
    for normals; :mod:`mtl_deploy.calibration.kinds` says it of the others.
    """
    return kind_of(task).main_of(task)


def name_of(key: str) -> str:
    """Return a metric's name by its key."""
    return metric_of(key).name


def lower_is_better(name: str) -> bool:
    """Return whether a smaller value of a metric is better."""
    return metric_of(name).lower_is_better


def is_share(name: str) -> bool:
    """Return whether a metric is a share, which is shown in percent; the others have the task's unit."""
    return metric_of(name).share


def metrics(task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
    """Compute a task's metrics over the images with a label.

    Args:
        task: a vector task; a regression's ``scale`` and ``offset`` and a binary task's ``threshold`` are used.
        outputs: ``(N, size)``, the graph's.
        labels: ``(N,)``, see :class:`~mtl_deploy.calibration.data.dataset.CalibrationData`.
        decoded: whether the graph gives probabilities and scaled values; False: it gives logits.

    Returns:
        ``mae`` in the task's unit (infinite if an answer is NaN), or ``accuracy``, ``balanced_accuracy`` and ``f1`` as shares from
        0 to 1. Empty without labels.
    """
    present = known(labels)
    if not present.any():
        return {}
    return kind_of(task).figures(task, outputs[present], labels[present], decoded)


def per_sample(task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> npt.NDArray[np.float64]:
    """Return the figures of each image that the main metric is the mean of.

    Args:
        task: see :func:`metrics`.
        outputs: ``(N, size)``.
        labels: ``(N,)``.
        decoded: see :func:`metrics`.

    Returns:
        ``(N,)``: for a regression the absolute error in its unit, averaged over its values, infinite if the answer is NaN; for
        classes 1.0 if the answer is right, else 0.0. NaN without a label.
    """
    return kind_of(task).per_image(task, outputs, labels, decoded)
