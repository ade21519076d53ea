"""Measures of dense tasks, from sums an image: a data set's figure comes from their total, so that no picture is kept.

Sources: mean intersection over union as in Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010 (from one
confusion matrix over all images); root mean square error and the share within 1.25 of depth as in Eigen, Puhrsch, Fergus: Depth Map
Prediction from a Single Image, NIPS 2014, in the linear scale; mean angular error of normals and the shares within 11.25, 22.5 and
30 degrees as in Eigen, Fergus, ICCV 2015.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task

from .bootstrap import CONFIDENCE, RESAMPLES

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[Any]
"""Class indices ``(H, W)``, depth ``(H, W)`` in the task's unit, or unit normals ``(H, W, 3)``."""

ANGLES = (11.25, 22.5, 30.0)  # degrees


def picture_sums(task: Task, answer: Picture, truth: Picture) -> Floats:
    """Return what one image adds to a task's figures, over the pixels whose truth is known.

    Args:
        task: a dense one.
        answer: the network's.
        truth: of the same size; not known is an index that is no class's (255), NaN, or for depth 0 and less too.

    Returns:
        segmentation, C classes: ``(3 C,)``: of each class the pixels that are both, that the answer has, that the truth has;
        depth: ``(7,)``: pixels, sums of absolute, squared and relative errors, pixels within a factor of 1.25, sums of the truth
        and of its square;
        normals: ``(5,)``: pixels, sum of angles in degrees, pixels within each of :data:`ANGLES`.
        An answer that is no number is infinitely wrong.
    """
    if task.kind == "segmentation":
        return _segmentation(task.size, answer, truth)
    return _depth(answer, truth) if task.kind == "depth" else _normals(answer, truth)


def _segmentation(classes: int, answer: Picture, truth: Picture) -> Floats:
    present = (truth >= 0) & (truth < classes)
    said, true = answer[present].astype(np.int64), truth[present].astype(np.int64)
    counts = [np.bincount(of, minlength=classes)[:classes] for of in (true[said == true], said, true)]
    return np.concatenate(counts).astype(np.float64)


def _depth(answer: Picture, truth: Picture) -> Floats:
    with np.errstate(invalid="ignore"):
        present = np.isfinite(truth) & (truth > 0)
    said, true = answer[present].astype(np.float64), truth[present].astype(np.float64)
    error = np.abs(said - true)
    error[~np.isfinite(said)] = np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        close = np.maximum(said / true, true / said) < 1.25
    close &= said > 0
    sums = [error.size, error.sum(), (error**2).sum(), (error / true).sum(), close.sum(), true.sum(), (true**2).sum()]
    return np.array(sums, np.float64)


def best_constant(task: Task, sums: Floats) -> tuple[float, Floats]:
    """Return the one answer that serves all pixels best, and the sums that it would have.

    Args:
        task: a segmentation or depth.
        sums: ``(N, K)``, an image a row.

    Returns:
        the index of the class that most pixels have, or the mean depth, which has the least root mean square error; and ``(N,
        K)``, of which only what the main metric comes from counts.
    """
    found = np.zeros_like(sums)
    if task.kind == "segmentation":
        classes = task.size
        true = sums[:, 2 * classes :]
        most = int(true.sum(axis=0).argmax())
        found[:, most] = true[:, most]
        found[:, classes + most] = true.sum(axis=1)
        found[:, 2 * classes :] = true
        return float(most), found
    pixels, total, squares = sums[:, 0], sums[:, 5], sums[:, 6]
    mean = float(total.sum() / pixels.sum())
    found[:, 0] = pixels
    found[:, 2] = np.maximum(squares - 2 * mean * total + mean**2 * pixels, 0)
    return mean, found


def _normals(answer: Picture, truth: Picture) -> Floats:
    present = np.isfinite(truth).all(axis=-1)
    angle = angles(answer[present], truth[present])
    return np.array([angle.size, angle.sum(), *((angle <= limit).sum() for limit in ANGLES)], np.float64)


def angles(one: Picture, other: Picture) -> Floats:
    """Return the angles in degrees between unit vectors ``(..., 3)``; infinite where one is no number.

    By the half chord's arcsine, which is exact for small angles, where the arccosine of a product is not.
    """
    half = np.linalg.norm(one.astype(np.float64) - other.astype(np.float64), axis=-1) / 2
    found: Floats = np.degrees(2 * np.arcsin(np.clip(half, 0, 1)))
    return np.where(np.isnan(half), np.inf, found)


def figures(task: Task, sums: Floats) -> dict[str, Floats]:
    """Return a task's metrics from sums.

    Args:
        task: a dense one.
        sums: ``(..., K)``, totals of :func:`picture_sums`.

    Returns:
        by metric ``(...)``: ``mean_iou`` (over the classes that occur in truth or answers) and ``pixel_accuracy`` as shares;
        ``rmse`` and ``mae`` in the unit, ``abs_rel``, ``within_1.25`` as shares; ``mean_angle`` in degrees, ``within_11.25`` and so
        on as shares. The first is the main one. NaN where no pixel's truth is known.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if task.kind == "segmentation":
            both, said, true = np.split(sums, 3, axis=-1)
            union = said + true - both
            occurs = union > 0
            overlap = np.where(occurs, both / np.where(occurs, union, 1), 0.0)
            return {
                "mean_iou": overlap.sum(axis=-1) / occurs.sum(axis=-1),
                "pixel_accuracy": both.sum(axis=-1) / true.sum(axis=-1),
            }
        pixels, *others = np.moveaxis(sums, -1, 0)
        if task.kind == "depth":
            absolute, squared, relative, close = (one / pixels for one in others[:4])
            return {"rmse": np.sqrt(squared), "mae": absolute, "abs_rel": relative, "within_1.25": close}
        angle, *shares = (one / pixels for one in others)
        return {"mean_angle": angle} | {f"within_{limit:g}": s for limit, s in zip(ANGLES, shares, strict=True)}


def drop_interval(
    task: Task, sums: Floats, reference: Floats, seed: int = 0, *, factor: float = 1.0
) -> tuple[float, float, float]:
    """Return how much worse a task's main metric is than another network's on the same images, with its 95 % interval.

    The paired bootstrap of :func:`~mtl_deploy.calibration.accuracy.bootstrap.paired_interval`: images are drawn, and the
    metric is computed from each draw's totals, as mean intersection over union is no mean over images.

    Args:
        task: a dense one.
        sums: ``(N, K)``, an image a row.
        reference: ``(N, K)``, the other network's on the same images.
        seed: of the drawing.
        factor: the reference's metric is multiplied by it: what remains of a drop once a share of the error is allowed.

    Returns:
        the drop (positive: worse) and the ends of its interval, in the metric's unit; all infinite where an answer is no number.
    """
    totals = [_main(task, each.sum(axis=0)) for each in (sums, reference)]
    if not all(math.isfinite(float(total)) for total in totals):
        return math.inf, math.inf, math.inf
    drop = float(totals[0] - factor * totals[1])
    size = len(sums)
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)
    drops = _main(task, counts @ sums) - factor * _main(task, counts @ reference)
    drops = drops[np.isfinite(drops)]
    if not drops.size:
        return drop, drop, drop
    drops = drop + (drops - drop) * math.sqrt(size / max(size - 1, 1))
    low, high = np.quantile(drops, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return drop, min(float(low), drop), max(float(high), drop)


def _main(task: Task, sums: Floats) -> Floats:
    """Return the main metric with a sign that makes more be worse."""
    found = next(iter(figures(task, sums).values()))
    return -found if task.kind == "segmentation" else found


def differences(task: Task, answer: Picture, reference: Picture) -> Floats:
    """Return how far two answers are apart, a pixel ``(H, W)``.

    Of a segmentation 1.0 where the class differs, of depth the absolute difference in its unit, of normals the angle in degrees;
    infinite where one alone is no number.
    """
    if task.kind == "segmentation":
        return np.asarray(answer != reference, np.float64)
    if task.kind == "normals":
        return angles(answer, reference)
    with np.errstate(invalid="ignore"):
        apart = np.abs(answer.astype(np.float64) - reference.astype(np.float64))
    return np.where(np.isnan(apart), np.inf, apart)
