"""Mean average precision, and how certain it is.

Source: the evaluation of COCO (Lin et al., Microsoft COCO, ECCV 2014), ``pycocotools/cocoeval.py`` (``accumulate``): the precision
at 101 recalls, each the best at that recall or a higher one, averaged over recalls, overlaps and the classes that occur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .matching import OVERLAPS, Floats, Matches

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_AT_ONCE = 1 << 20  # boxes times draws whose figures are computed at once


@dataclass(frozen=True, eq=False)
class _OfClass:
    """Boxes of one class over all images, the highest score first.

    Attributes:
        images: ``(D,)``: the image of each.
        right: ``(10, D)``: 1.0 where a box is right.
        counted: ``(10, D)``: 1.0 where it counts at all.
        counts: ``(N,)``: how many there are to find, by image.
    """

    images: npt.NDArray[np.intp]
    right: Floats
    counted: Floats
    counts: Floats


class Precision:
    """The average precision over some images.

    Args:
        images: each image's matches.
    """

    def __init__(self, images: Sequence[Matches]) -> None:
        self.images = len(images)
        self._classes = [_of_class(images, name) for name in range(len(images[0].counts))] if images else []

    def figures(self, weights: Floats | None = None) -> dict[str, float]:
        """Return the figures by name.

        Args:
            weights: ``(N,)``: how often each image counts; None: once.

        Returns:
            ``map``: the mean over overlaps from 0.5 to 0.95; ``map_50``: at 0.5. NaN where there is nothing to find.
        """
        times = np.ones(self.images) if weights is None else weights
        found = [_averages(each, times[None]) for each in self._classes]
        rows = np.array([row[0] for row in found if np.isfinite(row).all()])
        if not len(rows):
            return {"map": math.nan, "map_50": math.nan}
        return {"map": float(rows.mean()), "map_50": float(rows[:, 0].mean())}

    def drawn(self, counts: Floats) -> Floats:
        """Return ``map`` of samples of the images drawn with replacement.

        Args:
            counts: ``(draws, N)``: how often each image is in each draw.

        Returns:
            ``(draws,)``; NaN of a draw in which there is nothing to find.
        """
        sums, classes = np.zeros(len(counts)), np.zeros(len(counts))
        for each in self._classes:
            step = max(1, _AT_ONCE // max(len(each.images), 1))
            found = [_averages(each, counts[start : start + step]) for start in range(0, len(counts), step)]
            averages = np.concatenate(found).mean(axis=1)
            present = np.isfinite(averages)
            sums += np.where(present, averages, 0)
            classes += present
        with np.errstate(invalid="ignore"):
            return np.where(classes > 0, sums / np.maximum(classes, 1), np.nan)


def _of_class(images: Sequence[Matches], name: int) -> _OfClass:
    of = [np.flatnonzero(each.classes == name) for each in images]
    scores = np.concatenate([each.scores[places] for each, places in zip(images, of, strict=True)])
    order = np.argsort(-scores, kind="stable")
    places = np.concatenate([np.full(len(chosen), image) for image, chosen in enumerate(of)]).astype(np.intp)
    right, ignored = (
        np.concatenate([getattr(each, field)[:, chosen] for each, chosen in zip(images, of, strict=True)], axis=1)
        for field in ("right", "ignored")
    )
    return _OfClass(
        images=places[order],
        right=(right & ~ignored)[:, order].astype(np.float64),
        counted=(~ignored)[:, order].astype(np.float64),
        counts=np.array([each.counts[name] for each in images], np.float64),
    )


def _averages(of: _OfClass, times: Floats) -> Floats:
    """Return the average precision at each overlap, ``(draws, 10)``; NaN where there is nothing to find.

    Each recall counts with the precision at the box that first reaches it, which is a right one; so only right boxes are looked at.

    Args:
        of: a class.
        times: ``(draws, N)``: how often each image counts.
    """
    total = times @ of.counts
    weights = times[:, of.images]
    found = np.full((len(times), len(OVERLAPS)), np.nan)
    same = bool((of.counted == of.counted[:1]).all())  # at each overlap: there is no crowd
    counted = np.cumsum(of.counted[0] * weights, axis=1)
    for level in range(len(OVERLAPS)):
        places = np.flatnonzero(of.right[level])
        if not same:
            counted = np.cumsum(of.counted[level] * weights, axis=1)
        right = np.cumsum(weights[:, places], axis=1)
        precision = right / (counted[:, places] + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            reached = np.searchsorted(RECALLS, right / total[:, None], side="right")
        found[:, level] = (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
    found[total == 0] = np.nan
    return found
