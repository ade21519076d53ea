"""What a graph has kept, compared with the rows that it had to choose from.

Whether a box is kept can hang on the last digit of a score or an overlap, so what is kept is not compared box by box. What greedy
suppression gives is characterised by four properties, each of which is checked with a little room for rounding: every kept box is
one of the rows; its score is above the threshold; no two of a class overlap by more than the threshold; and every row above the
threshold is kept, or overlaps with a better one that is, or scores less than all of ``top_k`` kept ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.kinds.detection.options import DetectionOptions

Floats = npt.NDArray[np.floating]

SCORE = 0.02
"""Room for a score. Rows are verified by themselves, and much more strictly."""
PLACE = 0.01
"""Room for a place, of the image's longer side."""
OVERLAP = 0.05
"""Room for an overlap."""


def unlike(kept: Floats, rows: Floats, options: DetectionOptions) -> npt.NDArray[np.float64]:
    """Return ``(top_k,)``: infinite where a kept box breaks a rule, 0 where it keeps it; what is missing counts at the end.

    Args:
        kept: ``(top_k, kept_size)``, what the graph gave for an image.
        rows: ``(A, decoded_size)``, the decoded rows of the truth.
        options: the task's.
    """
    wrong = np.zeros(len(kept))
    found = kept[kept[:, 4] > 0]
    count = len(found)
    if (kept[:count, 4] <= 0).any() or (np.diff(found[:, 4]) > 0).any() or kept[count:, 4].any():
        wrong[:] = np.inf  # not the best ones first
        return wrong
    rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
    choices, clear = _choices(rows, options)
    room = PLACE * max(options.input_size)
    same = np.abs(found[:, None, 5] - choices[None, :, 5]) < 0.5
    apart = np.abs(found[:, None, :4] - choices[None, :, :4]).max(axis=2, initial=0)
    near = same & (apart <= room) & (np.abs(found[:, None, 4] - choices[None, :, 4]) <= SCORE)
    bad = ~near.any(axis=1) if len(choices) else np.ones(count, bool)
    bad |= found[:, 4] < options.score_threshold - SCORE
    if options.iou_threshold < 1 and count:
        alike = _overlaps(found, found) * (found[:, None, 5] == found[None, :, 5])
        np.fill_diagonal(alike, 0)
        bad |= (alike > options.iou_threshold + OVERLAP).any(axis=1)
    wrong[:count][bad] = np.inf
    if (clear & _missing(found, choices, near, options)).any():
        wrong[-1] = np.inf
    return wrong


def _choices(rows: Floats, options: DetectionOptions) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return what may be kept, as boxes with score and class, and which of them are a row's class beyond doubt."""
    scores = rows[:, 4 : 4 + options.columns.classes]
    allowed = scores > options.score_threshold - SCORE
    clear = np.ones_like(allowed)
    if options.per_row == "best" and scores.shape[1] > 1:
        second, best = np.sort(scores, axis=1)[:, -2:].T
        allowed &= scores >= best[:, None] - SCORE
        clear = np.broadcast_to((best - second > SCORE)[:, None], allowed.shape)
    places, classes = np.nonzero(allowed)
    values = scores[places, classes]
    choices = np.concatenate([rows[places, :4], values[:, None], classes[:, None]], axis=1)
    return choices, clear[places, classes]


def _missing(
    found: Floats, choices: Floats, near: npt.NDArray[np.bool_], options: DetectionOptions
) -> npt.NDArray[np.bool_]:
    """Return which of the choices should have been kept."""
    must = choices[:, 4] > options.score_threshold + SCORE
    if len(found):
        must &= ~near.any(axis=0)
        if len(found) == options.top_k:
            must &= choices[:, 4] > found[:, 4].min() + SCORE
        better = found[:, None, 4] >= choices[None, :, 4] - SCORE
        same = np.abs(found[:, None, 5] - choices[None, :, 5]) < 0.5
        covered = same & better & (_overlaps(found, choices) > options.iou_threshold - OVERLAP)
        must &= ~covered.any(axis=0)
    return must


def _overlaps(one: Floats, other: Floats) -> Floats:
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:4], other[None, :, 2:4])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas, others = (np.prod(each[:, 2:4] - each[:, :2], axis=1) for each in (one, other))
    union = areas[:, None] + others[None] - both
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both > 0, both / union, 0.0)
