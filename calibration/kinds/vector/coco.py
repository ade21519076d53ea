"""Labels of points from COCO's JSON, as keypoints have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl_deploy.calibration.kinds.base import Labels
from mtl_deploy.calibration.kinds.keypoints.coco import read_coco
from mtl_deploy.calibration.kinds.keypoints.truth import Truth
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.nouns import noun
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.kinds.vector.fields import points_of, value_names


def coco_points(task: Task, file: Path, root: Path, images: Sequence[Path]) -> tuple[Labels, tuple[str, ...]]:
    """Read the points of each image as a vector's values; an image that lacks one has no label.

    Args:
        task: a vector whose values are all coordinates of points.
        file: COCO's JSON, see :func:`~mtl_deploy.calibration.kinds.keypoints.coco.read_coco`.
        root: of the images.
        images: their paths.

    Returns:
        ``(N, size)``, NaN without a label, and warnings.

    Raises:
        OptionError: some of the values are of no point, or the file cannot be used.
    """
    places = points_of(value_names(task))
    if 2 * len(places) != task.size:
        raise OptionError(
            f"{file}: COCO's keypoints are labels of points, but task {task.name!r} has values that are none; write a table with "
            f"columns {task.name}.NAME"
        )
    points = Task(task.name, "keypoints", labels=tuple(places), size=len(places))
    rows, warnings = read_coco(points, file, root, images)
    truth = Truth.of(rows)
    found = np.full((len(images), task.size), np.nan)
    for number, (x, y) in enumerate(places.values()):
        found[:, [x, y]] = np.where(truth.labelled[:, number, None], truth.points[:, number], np.nan)
    whole = truth.labelled.all(axis=1)
    found[~whole] = np.nan
    partly = int(np.count_nonzero(truth.labelled.any(axis=1) & ~whole))
    if partly:
        warnings = (
            *warnings,
            f"{task.name}: {partly} {noun(partly, 'image has', 'images have')} only some of the points: unknown",
        )
    return found, warnings
