"""How right points are: PCK and OKS.

Sources: Yang, Ramanan: Articulated Human Detection with Flexible Mixtures of Parts, TPAMI 2013, for the percentage of correct
keypoints; https://cocodataset.org/#keypoints-eval and pycocotools' ``computeOks`` for the object keypoint similarity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_deploy.runtime.bundle.tasks import Task

from .truth import Floats, Truth


def distances(points: Floats, truth: Truth) -> Floats:
    """Return how far points are off, ``(N, K)`` pixels of the image; infinite where an answer is no number, NaN without a label."""
    away = np.linalg.norm(points - truth.points, axis=2)
    return np.where(truth.labelled, np.where(np.isnan(away), np.inf, away), np.nan)


def pck(task: Task, points: Floats, truth: Truth) -> Floats:
    """Return each image's share of labelled points that are right, ``(N,)``; NaN where it has none.

    Args:
        task: with its options.
        points: ``(N, K, 2)``, in the image's pixels.
        truth: of the same images.
    """
    allowed = task.options.pck_threshold * truth.size(task)
    with np.errstate(invalid="ignore"):
        right = distances(points, truth) <= allowed[:, None]
        return np.asarray((right & truth.labelled).sum(axis=1) / truth.labelled.sum(axis=1))


def oks(points: Floats, truth: Truth, sigmas: Sequence[float]) -> Floats:
    """Return each image's object keypoint similarity, ``(N,)``; NaN where it has no label."""
    variances = (2 * np.asarray(sigmas, np.float64)) ** 2
    area = truth.area[:, None] + np.spacing(1)
    similar = np.exp(-(distances(points, truth) ** 2) / variances / area / 2)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(truth.labelled, similar, 0).sum(axis=1) / truth.labelled.sum(axis=1))
