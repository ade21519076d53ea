"""Which boxes of one image are right: each box is matched with one of the truth, at each overlap that COCO asks for.

Source: the evaluation of COCO, ``pycocotools/cocoeval.py`` (``evaluateImg``) and ``common/maskApi.c`` (``bbIou``), whose rules are
written here in numpy so that figures of many images can be drawn again and again for their intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

OVERLAPS: Floats = np.linspace(0.5, 0.95, 10)
"""Intersection over union from which a box counts as found."""
MOST = 100
"""Boxes per image and class that count."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is to be found in one image.

    Attributes:
        boxes: ``(G, 4)``: x1, y1, x2, y2 in pixels.
        classes: ``(G,)``.
        crowd: ``(G,) bool``: regions of many objects; what is found in them counts neither as right nor as wrong.
        region: x1, y1, x2, y2 of the image itself, which is not all of the network's input; boxes are cut at its edges.
    """

    boxes: Floats
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    region: tuple[float, float, float, float] = (-np.inf, -np.inf, np.inf, np.inf)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.boxes)


@dataclass(frozen=True, eq=False)
class Matches:
    """How the boxes of one image compare with the truth.

    Attributes:
        scores: ``(D,)``.
        classes: ``(D,)``.
        right: ``(10, D) bool``: whether a box is matched, at each of :data:`OVERLAPS`.
        ignored: ``(10, D) bool``: whether it does not count, being in a crowd.
        counts: ``(classes,)``: how many there are to find.
    """

    scores: Floats
    classes: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    counts: npt.NDArray[np.int64]


def matches(boxes: Floats, scores: Floats, found: npt.NDArray[np.int64], truth: Truth, classes: int) -> Matches:
    """Match the boxes that were found in one image.

    Of each class the :data:`MOST` best boxes are taken, in the order of their scores; each takes the one that it overlaps with most
    of those that no better box has taken, if by at least the overlap asked for.

    Args:
        boxes: ``(D, 4)``: x1, y1, x2, y2, in the truth's pixels.
        scores: ``(D,)``.
        found: ``(D,)``: classes.
        truth: of the image.
        classes: how many there are.
    """
    kept, right, ignored = [], [], []
    for name in np.unique(found):
        places = np.flatnonzero(found == name)
        order = places[np.argsort(-scores[places], kind="stable")][:MOST]
        of = np.flatnonzero(truth.classes == name)
        of = of[np.argsort(truth.crowd[of], kind="stable")]  # those that count first
        hit, skipped = _matched(overlaps(boxes[order], truth.boxes[of], truth.crowd[of]), truth.crowd[of])
        kept.append(order)
        right.append(hit)
        ignored.append(skipped)
    chosen = np.concatenate(kept) if kept else np.zeros(0, np.intp)
    none = np.zeros((len(OVERLAPS), 0), bool)
    return Matches(
        scores=scores[chosen].astype(np.float64),
        classes=found[chosen].astype(np.int64),
        right=np.concatenate([none, *right], axis=1),
        ignored=np.concatenate([none, *ignored], axis=1),
        counts=np.bincount(truth.classes[~truth.crowd], minlength=classes)[:classes],
    )


def overlaps(boxes: Floats, truth: Floats, crowd: npt.NDArray[np.bool_]) -> Floats:
    """Return ``(D, G)``: intersection over union; of a crowd, over the box's own area."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truth[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas, wanted = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, truth))
    union = np.where(crowd[None], areas[:, None], areas[:, None] + wanted[None] - both)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both > 0, both / union, 0.0)


def _matched(overlap: Floats, crowd: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which boxes are matched and which of them with a crowd, ``(10, D)`` each; crowds are the last columns."""
    levels, single = np.arange(len(OVERLAPS)), int((~crowd).sum())
    right = np.zeros((len(OVERLAPS), len(overlap)), bool)
    ignored = np.zeros_like(right)
    if not overlap.shape[1]:
        return right, ignored
    free = np.ones((len(OVERLAPS), single), bool)
    for place, row in enumerate(overlap):
        done = np.zeros(len(OVERLAPS), bool)
        if single:
            left = np.where(free, row[:single], -1.0)
            best = single - 1 - np.argmax(left[:, ::-1], axis=1)  # of equal ones the last, as there
            done = left[levels, best] >= OVERLAPS
            free[levels[done], best[done]] = False
        in_crowd = ~done & bool((crowd).any()) & (row[single:].max(initial=-1.0) >= OVERLAPS)
        right[:, place] = done | in_crowd
        ignored[:, place] = in_crowd
    return right, ignored
