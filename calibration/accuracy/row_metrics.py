"""The drop of a metric that is computed from one row of numbers per image, so that no output is kept: maps, detections."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from mtl_deploy.calibration.kinds.base import Floats
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.calibration.kinds.rows import RowKind
from mtl_deploy.runtime.bundle.tasks import Task

from .bootstrap import CONFIDENCE, RESAMPLES


def row_kind(task: Task) -> RowKind:
    """Return the kind of a task whose images are rows."""
    return cast("RowKind", kind_of(task))


def drop_interval(
    task: Task, sums: Floats, reference: Floats, seed: int = 0, *, factor: float = 1.0
) -> tuple[float, float, float]:
    """Return how much worse a task's main metric is than another network's on the same images, with its 95 % interval.

    Images are drawn in pairs, as in :func:`~mtl_deploy.calibration.accuracy.bootstrap.paired_interval`, and the metric is computed
    from the rows of each draw, as mean intersection over union is not a mean over images.

    Args:
        task: one whose images are rows.
        sums: ``(N, K)``, one image per row.
        reference: ``(N, K)``, the other network's sums on the same images.
        seed: for drawing.
        factor: multiplies the reference's metric: 1 plus the share of the error that does not count as a drop.

    Returns:
        the drop (positive: worse) and the ends of its interval, in the metric's unit; all infinite if an answer is NaN or infinite.
    """
    kind = row_kind(task)
    totals = [kind.loss(np.asarray(kind.measured(task, each)[kind.main])) for each in (sums, reference)]
    if not all(math.isfinite(float(total)) for total in totals):
        return math.inf, math.inf, math.inf
    drop = float(totals[0] - factor * totals[1])
    size = len(sums)
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(np.float64)
    drawn = [kind.loss(kind.drawn(task, each, counts)) for each in (sums, reference)]
    drops = drawn[0] - factor * drawn[1]
    drops = drops[np.isfinite(drops)]
    if not drops.size:
        return drop, drop, drop
    drops = drop + (drops - drop) * math.sqrt(size / max(size - 1, 1))
    low, high = np.quantile(drops, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return drop, min(float(low), drop), max(float(high), drop)
