"""The metrics of each kind of task, on images with labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.labels import UNKNOWN, Labels, known
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.predictions.decoding import decode

Floats = npt.NDArray[np.float64]
Outputs = npt.NDArray[np.floating[Any]]

NAMES = {
    "mae": "mean absolute error",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "rmse": "RMSE",
    "abs_rel": "mean relative error",
    "within_1.25": "within a factor of 1.25",
    "mean_angle": "mean angular error",
    "within_11.25": "within 11.25 degrees",
    "within_22.5": "within 22.5 degrees",
    "within_30": "within 30 degrees",
}
"""Names of the metrics by their keys."""
_OF_VALUES = frozenset(("mae", "rmse", "mean_angle"))
_MAIN = {"regression": "mae", "raw": "mae", "segmentation": "mean_iou", "depth": "rmse", "normals": "mean_angle"}


def main_metric(task: Task) -> str:
    """Return the metric that budgets are about.

    It is ``mae`` for a regression, ``accuracy`` for classes, ``mean_iou`` for a segmentation, ``rmse`` for depth and ``mean_angle``
    for normals.
    """
    return _MAIN.get(task.kind, "accuracy")


def lower_is_better(name: str) -> bool:
    """Return whether a smaller value of a metric is better."""
    return name in _OF_VALUES or name == "abs_rel"


def is_share(name: str) -> bool:
    """Return whether a metric is a share, which is shown in percent; the others have the task's unit."""
    return name not in _OF_VALUES


def metrics(task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
    """Compute a task's metrics over the images with a label.

    Source: scikit-learn's definitions, https://scikit-learn.org/stable/modules/model_evaluation.html. ``balanced_accuracy`` is the
    mean recall over the classes that occur among the labels; ``f1`` is that of the positive class if there are two classes, else
    the mean over the classes that occur among labels or answers.

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
    outputs, labels = outputs[present], labels[present]
    if task.of_values:
        return {"mae": float(per_sample(task, outputs, labels, decoded).mean())}
    answers = chosen_classes(task, outputs, decoded)
    right = answers == labels
    recalls = [right[labels == name].mean() for name in np.unique(labels)]
    scored = [1] if task.kind == "binary" or task.size == 2 else np.union1d(labels, answers[answers != UNKNOWN])
    scores = []
    for name in scored:
        both = (labels == name).sum() + (answers == name).sum()
        scores.append(2 * (right & (labels == name)).sum() / both if both else 0.0)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "f1": float(np.mean(scores)),
    }


def per_sample(task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
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
    present = known(labels)
    if task.of_values:
        with np.errstate(invalid="ignore"):
            errors = np.abs(values(task, outputs, decoded) - labels.reshape(len(labels), -1)).mean(axis=1)
        return np.where(present, np.where(np.isnan(errors), np.inf, errors), np.nan)
    return np.where(present, chosen_classes(task, outputs, decoded) == labels, np.nan)


def values(task: Task, outputs: Outputs, decoded: bool) -> Floats:
    """Return a regression's values ``(N, size)`` in its unit."""
    numbers = outputs.astype(np.float64)
    return numbers if decoded else numbers * task.scale + task.offset


def chosen_classes(task: Task, outputs: Outputs, decoded: bool) -> npt.NDArray[np.int64]:
    """Return the class ``(N,)`` that the runtime would predict; -1 where an output is NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        answers = [prediction.value for prediction in decode(task, outputs, "decoded" if decoded else "logits")]
    return np.where(np.isnan(outputs).any(axis=1), UNKNOWN, np.array(answers, np.int64))
