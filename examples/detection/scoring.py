"""How good boxes, floor and conditions are, while the network trains; and the best answers that do not look at the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rooms import CLASSES, Objects, Rooms

Floats = npt.NDArray[np.float64]
RECALLS = np.linspace(0, 1, 101)
CELLS = (8, 10)  # of the constant answer: rows and columns of places, each with a mean box per class


@dataclass(frozen=True)
class Boxes:
    """What was found in one image.

    Attributes:
        boxes: ``(K, 4)``: x1, y1, x2, y2 in pixels.
        scores: ``(K,)``.
        classes: ``(K,) int64``.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


def map_50(found: Sequence[Boxes], truth: Sequence[Objects]) -> float:
    """Return the mean over the classes that occur of the average precision, as COCO has it, at an overlap of one half."""
    averages = [_average(found, truth, kind) for kind in range(len(CLASSES))]
    return float(np.mean([average for average in averages if average is not None]))


def _average(found: Sequence[Boxes], truth: Sequence[Objects], kind: int) -> float | None:
    scores, right, total = [], [], 0
    for boxes, objects in zip(found, truth, strict=True):
        mine = np.flatnonzero(boxes.classes == kind)
        mine = mine[np.argsort(-boxes.scores[mine], kind="stable")]
        theirs = objects.boxes[objects.classes == kind]
        total += len(theirs)
        left = overlaps(boxes.boxes[mine], theirs)
        for place in range(len(mine)):
            best = int(left[place].argmax()) if len(theirs) else -1
            hit = best >= 0 and left[place, best] >= 0.5
            if hit:
                left[:, best] = -1
            right.append(hit)
        scores.append(boxes.scores[mine])
    if not total:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.cumsum(np.array(right, float)[order])
    precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    reached = np.searchsorted(hits / total, RECALLS, side="left")
    return float(np.append(precision, 0.0)[reached].mean())


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Return ``(D, G)``: intersection over union."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas, wanted = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, others))
    return both / np.maximum(areas[:, None] + wanted[None] - both, 1e-9)


def constant_boxes(train: Rooms) -> Boxes:
    """Return the boxes to say of any image: of each class, per place of a grid, the mean box, with its frequency as the score."""
    height, width = train.images.shape[1:3]
    boxes = np.concatenate([objects.boxes for objects in train.objects])
    classes = np.concatenate([objects.classes for objects in train.objects])
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells = (middles[:, ::-1] * CELLS / (height, width)).astype(int)
    found = []
    for key in np.unique(np.column_stack([classes, cells]), axis=0):
        of = (classes == key[0]) & (cells == key[1:]).all(axis=1)
        found.append((boxes[of].mean(axis=0), of.sum() / len(train), key[0]))
    mean, scores, kinds = zip(*found, strict=True)
    return Boxes(np.array(mean), np.array(scores), np.array(kinds, np.int64))


def floor_iou(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """Return the intersection over union of the floor, over all pixels of all images."""
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def constant_floor(train: Rooms) -> npt.NDArray[np.bool_]:
    """Return ``(H, W)``: the pixels that show the floor in at least half of the images."""
    return train.floor.mean(axis=0) >= 0.5


def constant_conditions(train: Rooms) -> npt.NDArray[np.bool_]:
    """Return ``(4,)``: the conditions that hold in at least half of the images."""
    return train.conditions.mean(axis=0) >= 0.5
