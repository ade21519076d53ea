"""How far the boxes of two networks are from each other on one image, without labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .matching import Floats, overlaps

Boxes = npt.NDArray[np.float32]
"""``(K, 6 + extras)``: x1, y1, x2, y2, score and class in the first columns, the highest score first."""


def distances(one: Boxes, other: Boxes, threshold: float) -> Floats:
    """Return how far each box of two sets is from the other set, from 0 to 1.

    Of each box with a score above the threshold it is 1 minus the largest product of the overlap with a box of its class in the
    other set and of how close their scores are. Boxes there count from half the threshold on, so that a score that moves across
    the threshold is no box that is lost.

    Args:
        one: the boxes of one network.
        other: those of the other one.
        threshold: of scores.
    """
    return np.concatenate([_missing(one, other, threshold), _missing(other, one, threshold)])


def _missing(boxes: Boxes, others: Boxes, threshold: float) -> Floats:
    found: Floats = boxes[boxes[:, 4] > threshold].astype(np.float64)
    wanted: Floats = others[others[:, 4] > threshold / 2].astype(np.float64)
    if not len(found) or not len(wanted):
        return np.ones(len(found))
    crowd = np.zeros(len(wanted), np.bool_)
    overlap = overlaps(found[:, :4], wanted[:, :4], crowd)
    alike = overlap * (1 - np.abs(found[:, None, 4] - wanted[None, :, 4])) * (found[:, None, 5] == wanted[None, :, 5])
    apart: Floats = 1 - alike.max(axis=1)
    return apart


class Unlike:
    """How much boxes vary from image to image: the mean distance of each image's boxes from those of the one before.

    Args:
        threshold: of scores.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._before: Boxes | None = None
        self._sum, self._count = 0.0, 0

    def add(self, answer: Boxes) -> None:
        """Add an image's boxes."""
        if self._before is not None:
            found = distances(answer, self._before, self._threshold)
            self._sum += float(found.sum())
            self._count += found.size
        self._before = answer

    @property
    def ignoring(self) -> float:
        """Mean error of an answer for another image; 0 if nothing varies."""
        return self._sum / self._count if self._count else 0.0
