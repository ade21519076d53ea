"""From heatmaps to points in the network's input, in numpy.

A heatmap's pixel (i, j) stands for the place (stride * j, stride * i) of the input, as in the code of the papers that
:class:`~mtl_deploy.runtime.kinds.keypoints.options.KeypointOptions` names.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task

Heatmaps = npt.NDArray[np.floating]
QUARTER = 0.25


def points_of(task: Task, maps: Heatmaps) -> npt.NDArray[np.float32]:
    """Return ``(N, K, 3) float32``: x and y in pixels of the network's input, and the score, a heatmap's highest value.

    Args:
        task: with its size and stride.
        maps: ``(N, K, h, w)``.
    """
    count, points, height, width = maps.shape
    flat = maps.reshape(count, points, -1)
    places = flat.argmax(axis=2)
    rows, columns = np.divmod(places, width)
    if task.options.decoding == "argmax":
        moved = [np.sign(step) * QUARTER for step in steps(maps, rows, columns)]
        inside = is_inside(rows, columns, height, width)
        x, y = columns + moved[0] * inside, rows + moved[1] * inside
    else:
        x, y = _means(flat.astype(np.float32), height, width, task.options.beta)
    scores = np.take_along_axis(flat, places[..., None], axis=2)[..., 0]
    return np.stack([task.stride * x, task.stride * y, scores], axis=2).astype(np.float32)


def steps(maps: Heatmaps, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> tuple[Heatmaps, Heatmaps]:
    """Return how much higher the next pixel is than the one before, along x and y; at borders it means nothing.

    Args:
        maps: ``(N, K, h, w)``.
        rows: of the pixels, ``(N, K)``.
        columns: likewise.
    """
    height, width = maps.shape[2:]
    images, points = np.indices(rows.shape)
    left, right = np.maximum(columns - 1, 0), np.minimum(columns + 1, width - 1)
    above, below = np.maximum(rows - 1, 0), np.minimum(rows + 1, height - 1)
    along_x = maps[images, points, rows, right] - maps[images, points, rows, left]
    along_y = maps[images, points, below, columns] - maps[images, points, above, columns]
    return along_x, along_y


def is_inside(
    rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], height: int, width: int
) -> npt.NDArray[np.bool_]:
    """Return which pixels are far enough from the border to be moved, as the papers' code has it: beyond the second pixel."""
    return (columns > 1) & (columns < width - 1) & (rows > 1) & (rows < height - 1)


def _means(flat: npt.NDArray[np.float32], height: int, width: int, beta: float) -> tuple[Heatmaps, Heatmaps]:
    with np.errstate(invalid="ignore"):
        powers = np.exp(np.float32(beta) * (flat - flat.max(axis=2, keepdims=True)))
    shares = (powers / powers.sum(axis=2, keepdims=True)).reshape(*flat.shape[:2], height, width)
    x = shares.sum(axis=2) @ np.arange(width, dtype=np.float32)
    y = shares.sum(axis=3) @ np.arange(height, dtype=np.float32)
    return x, y
