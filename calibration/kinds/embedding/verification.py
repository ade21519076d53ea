"""Whether two images show the same: by the cosine of their vectors, from a threshold on that other pairs have chosen.

Source: Huang, Ramesh, Berg, Learned-Miller: Labeled Faces in the Wild, 2007, view 2: ten folds, each judged with the threshold
that is best on the nine others. The folds are cut in the order of the file, of the pairs that show the same and of the others
apart, so that LFW's own ten sets are the folds; with fewer than :data:`FEW` pairs there are two.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FOLDS = 10
FEW = 100
MANY = 20_000
_AT_ONCE = 128  # draws
_WIDEST = 4.0  # gap between cosines, beyond which there is no other pair


def folds_of(same: Flags) -> npt.NDArray[np.int64]:
    """Return the fold ``(P,)`` of each pair, in the order of the file."""
    count = FOLDS if len(same) >= FEW else 2
    found = np.zeros(len(same), np.int64)
    for which in (same, ~same):
        places = np.flatnonzero(which)
        found[places] = np.arange(len(places)) * count // max(len(places), 1)
    return found


def best_threshold(scores: Floats, same: Flags) -> float:
    """Return the threshold from which on pairs are called the same that is right most often; in the middle of its gap.

    Of several that are as good, the lowest is taken.
    """
    order = np.argsort(scores, kind="stable")
    ordered, of_same = scores[order], same[order]
    # a threshold before place i calls i..P the same: right are the different ones before it and the same ones from it on
    right = np.concatenate([[0], np.cumsum(~of_same)]) + np.concatenate([np.cumsum(of_same[::-1])[::-1], [0]])
    ends = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])  # equal scores cannot be parted
    place = int(np.argmax(np.where(ends, right, -1)))
    if place == 0:
        return float(ordered[0]) - 1e-9
    if place == len(ordered):
        return float(ordered[-1]) + 1e-9
    return float(ordered[place - 1] + ordered[place]) / 2


def right_answers(scores: Floats, same: Flags) -> Flags:
    """Return which pairs ``(P,)`` are judged right, each with the threshold of the other folds; NaN is wrong."""
    found = np.zeros(len(scores), np.bool_)
    usable = np.isfinite(scores)
    folds = folds_of(same)
    for fold in np.unique(folds):
        others = (folds != fold) & usable
        own = folds == fold
        if not others.any():
            others = usable
        if others.any():
            with np.errstate(invalid="ignore"):
                found[own] = (scores[own] >= best_threshold(scores[others], same[others])) == same[own]
    return found & usable


def drawn_shares(scores: Floats, same: Flags, weights: Floats) -> Floats:
    """Return the share of right answers of weighted pairs, ``(draws,)``; each draw chooses its thresholds anew.

    Of more than :data:`MANY` pairs, where that would take long, the thresholds of all pairs are used; they change little then.

    Args:
        scores: ``(P,)``, finite.
        same: ``(P,)``.
        weights: ``(draws, P)``: how often each pair is in each draw.
    """
    if len(same) > MANY:
        return np.asarray(weights @ right_answers(scores, same) / weights.sum(axis=1))
    folds = folds_of(same)
    right = np.zeros(len(weights))
    for fold in np.unique(folds):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        others = others if len(others) else own
        order = others[np.argsort(scores[others], kind="stable")]
        ordered = scores[order]
        below = np.concatenate([[ordered[0] - 2e-9], ordered])
        ends = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
        for start in range(0, len(weights), _AT_ONCE):
            some = weights[start : start + _AT_ONCE]
            gain = np.zeros((len(some), len(order) + 1))  # what moving the threshold beyond a pair gains
            np.cumsum(np.where(same[order], -some[:, order], some[:, order]), axis=1, out=gain[:, 1:])
            place = np.argmax(np.where(ends, gain, -np.inf), axis=1)
            later = np.where((some[:, order] > 0) & (np.arange(len(order)) >= place[:, None]), ordered, np.inf).min(
                axis=1
            )
            threshold = (below[place] + np.minimum(later, below[place] + _WIDEST)) / 2  # the middle of its gap
            answers = (scores[own] >= threshold[:, None]) == same[own]
            right[start : start + _AT_ONCE] += (some[:, own] * answers).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(right / weights.sum(axis=1), np.float64)


def area(scores: Floats, same: Flags) -> float:
    """Return the area under the ROC curve: how often a pair of the same has the larger score, ties half; NaN with one sort.

    Source: Mann and Whitney's statistic, see Fawcett: An Introduction to ROC Analysis, 2006.
    """
    if not same.any() or same.all():
        return float("nan")
    values = np.where(np.isfinite(scores), scores, -np.inf)
    _, ranks, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2  # mean rank of equal scores
    positives = int(same.sum())
    total = float(middle[ranks][same].sum()) - positives * (positives + 1) / 2
    return total / (positives * (len(same) - positives))
