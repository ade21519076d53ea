"""Metrics of dense tasks from sums per image: those of a data set come from the total of the sums, so that no map is kept.

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
    """Return one image's sums for a task's metrics, over the pixels whose truth is known.

    Args:
        task: a dense one.
        answer: the network's map.
        truth: the label map, of the same size; a pixel is unlabelled where it holds the index of no class (255), NaN or, for depth,
            0 or less.

    Returns:
        segmentation with C classes: ``(3 C,)``: by class, the pixels that have it in both maps, in the answer, and in the truth;
        depth: ``(7,)``: number of pixels, sums of absolute, squared and relative errors, pixels within a factor of 1.25, sum of the
        truth and of its square;
        normals: ``(5,)``: number of pixels, sum of angles in degrees, pixels within each of :data:`ANGLES`.
        An answer that is NaN or infinite counts as an infinite error.
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
    """Return the constant answer that is best for all pixels, and the sums that it would have.

    Args:
        task: a segmentation or depth.
        sums: ``(N, K)``, one image per row.

    Returns:
        the index of the most frequent class, or the mean depth, which has the least root mean square error; and its sums
        ``(N, K)``, of which only those for the main metric are valid.
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
    """Return the angles in degrees between unit vectors ``(..., 3)``; infinite where a component is NaN.

    It takes the arcsine of half the chord, which is exact for small angles; the arccosine of the dot product is not.
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
        by metric ``(...)``: for segmentation ``mean_iou`` (over the classes that occur in truth or answers) and ``pixel_accuracy``,
        as shares; for depth ``rmse`` and ``mae`` in its unit, ``abs_rel`` and ``within_1.25`` as shares; for normals ``mean_angle``
        in degrees, ``within_11.25`` and so on as shares. The first one is the main metric. NaN where no pixel is labelled.
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

    Images are drawn in pairs, as in :func:`~mtl_deploy.calibration.accuracy.bootstrap.paired_interval`, and the metric is computed
    from the totals of each draw, as mean intersection over union is not a mean over images.

    Args:
        task: a dense one.
        sums: ``(N, K)``, one image per row.
        reference: ``(N, K)``, the other network's sums on the same images.
        seed: for drawing.
        factor: multiplies the reference's metric: 1 plus the share of the error that does not count as a drop.

    Returns:
        the drop (positive: worse) and the ends of its interval, in the metric's unit; all infinite if an answer is NaN or infinite.
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
    """Return the main metric with its sign chosen so that larger is worse."""
    found = next(iter(figures(task, sums).values()))
    return -found if task.kind == "segmentation" else found


def differences(task: Task, answer: Picture, reference: Picture) -> Floats:
    """Return the difference between two maps at each pixel, ``(H, W)``.

    For a segmentation it is 1.0 where the class differs, for depth the absolute difference in its unit, for normals the angle in
    degrees; infinite where only one of them is NaN.
    """
    if task.kind == "segmentation":
        return np.asarray(answer != reference, np.float64)
    if task.kind == "normals":
        return angles(answer, reference)
    with np.errstate(invalid="ignore"):
        apart = np.abs(answer.astype(np.float64) - reference.astype(np.float64))
    return np.where(np.isnan(apart), np.inf, apart)
