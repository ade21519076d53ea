"""Which of a detector's rows are kept: those above the threshold, of overlapping ones of a class the best, and the best few."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .options import DetectionOptions

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


def kept_rows(rows: Floats, options: DetectionOptions, threshold: float | None = None) -> Floats:
    """Suppress one image's decoded rows.

    Greedy non-maximum suppression per class (ONNX ``NonMaxSuppression``, ``torchvision.ops.batched_nms``): of the rows of a class,
    in the order of their scores (of equal ones the first row goes first), each is dropped that overlaps with one that is kept by
    more than ``iou_threshold``. What holds a NaN or an infinite number is never kept.

    Args:
        rows: ``(A, decoded_size)``, see :func:`~mtl_deploy.runtime.kinds.detection.boxes.decode_rows`.
        options: the task's.
        threshold: a score to take in place of the options' own.

    Returns:
        ``(K, kept_size)``, K at most ``top_k``: x1, y1, x2, y2, score and class, then landmarks, keypoints and coefficients; the
        highest scores first.
    """
    layout = options.columns
    boxes, scores = rows[:, layout.decoded("boxes")], rows[:, layout.decoded("scores")]
    places, classes, found = candidates(scores, options, threshold)
    usable = np.isfinite(rows[places]).all(axis=1)
    places, classes, found = places[usable], classes[usable], found[usable]
    chosen = suppress(boxes[places], found, classes, options.iou_threshold, options.top_k)
    places, classes, found = places[chosen], classes[chosen], found[chosen]
    extras = rows[places][:, 4 + layout.classes :]
    return np.concatenate([boxes[places], found[:, None], classes[:, None].astype(np.float32), extras], axis=1)


def candidates(scores: Floats, options: DetectionOptions, threshold: float | None) -> tuple[Indices, Indices, Floats]:
    """Return rows, classes and scores of what is above the threshold, row by row."""
    least = np.float32(options.score_threshold if threshold is None else threshold)
    if options.per_row == "all":
        places, classes = np.nonzero(scores > least)
        return places, classes, scores[places, classes]
    best = scores.argmax(axis=1) if scores.shape[1] > 1 else np.zeros(len(scores), np.intp)
    found = np.take_along_axis(scores, best[:, None], axis=1)[:, 0]
    (places,) = np.nonzero(found > least)
    return places, best[places], found[places]


def suppress(boxes: Floats, scores: Floats, classes: Indices, iou_threshold: float, top_k: int) -> Indices:
    """Return which boxes are kept, the highest score first, at most ``top_k``.

    Boxes are taken in the order of all scores, so that the work ends with the last one that is kept: it grows with ``top_k`` times
    the number of boxes.

    Args:
        boxes: ``(K, 4)``: x1, y1, x2, y2.
        scores: ``(K,)``.
        classes: ``(K,)``.
        iou_threshold: boxes of a class that overlap by more are dropped.
        top_k: the most that are kept.
    """
    order = np.argsort(-scores, kind="stable")
    if iou_threshold >= 1:
        return order[:top_k]
    boxes, classes = boxes[order], classes[order]
    low = [np.minimum(boxes[:, side], boxes[:, side + 2]) for side in (0, 1)]
    high = [np.maximum(boxes[:, side], boxes[:, side + 2]) for side in (0, 1)]
    areas = (high[0] - low[0]) * (high[1] - low[1])
    alive = np.ones(len(order), np.bool_)
    kept: list[int] = []
    for first in range(len(order)):
        if not alive[first]:
            continue
        kept.append(first)
        if len(kept) == top_k:
            break
        wide, tall = (
            np.minimum(high[side][first + 1 :], high[side][first])
            - np.maximum(low[side][first + 1 :], low[side][first])
            for side in (0, 1)
        )
        both = np.maximum(wide, 0) * np.maximum(tall, 0)
        union = areas[first + 1 :] + areas[first] - both
        with np.errstate(divide="ignore", invalid="ignore"):
            covered = (both > 0) & (both / union > iou_threshold)
        alive[first + 1 :] &= ~(covered & (classes[first + 1 :] == classes[first]))
    return order[kept]
