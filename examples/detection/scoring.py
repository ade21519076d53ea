"""How good boxes, floor and conditions are, while the network trains; and the best answers that do not look at the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rooms import CLASSES, Objects, Rooms

from mtl_deploy.calibration.kinds.detection.matching import Truth, matches
from mtl_deploy.calibration.kinds.detection.precision import Precision

Floats = npt.NDArray[np.float64]
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


def average_precision(found: Sequence[Boxes], truth: Sequence[Objects]) -> dict[str, float]:
    """Return COCO's mean average precision, ``map`` (overlaps from 0.5 to 0.95) and ``map_50``, as the toolkit computes it."""
    images = []
    for boxes, objects in zip(found, truth, strict=True):
        wanted = Truth(objects.boxes, objects.classes, np.zeros(len(objects), np.bool_))
        images.append(matches(boxes.boxes, boxes.scores, boxes.classes, wanted, len(CLASSES)))
    return Precision(images).figures()


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
