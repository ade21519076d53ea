"""Drawing images evenly over their order, and dividing them into parts with similar labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .labels import Labels, known

_BINS = 10  # quantiles of a regression's values, at most
_IN_A_BIN = 4  # images per quantile and part, at least

Positions = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]


def spread(total: int, count: int, seed: int = 0) -> Positions:
    """Return ``count`` of ``total`` positions, ascending, one drawn from each of ``count`` stretches of equal length.

    If there are fewer positions, all are returned. An order often means something (file names that start with an age), so its first
    positions are like each other. Drawing within the stretches avoids the bias that even steps would have if the order is periodic.

    Args:
        total: number of positions.
        count: number to return.
        seed: the same seed draws the same positions.
    """
    if count >= total:
        return np.arange(total)
    ends = np.arange(count + 1) * total // count
    return np.random.default_rng(seed).integers(ends[:-1], ends[1:]).astype(np.intp)


def stratified(
    labels: Mapping[str, Labels], units: Sequence[Sequence[int]], shares: Sequence[float], seed: int
) -> Positions:
    """Divide units so that each label is in every part by the part's share, the rarest labels first.

    Iterative stratification (Sechidis et al., "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1): units with
    the label that has the fewest units left are dealt out one by one, each to the part that lacks most of that label (then most of
    the unit's other labels). So a label of three images is in each of three parts. A regression's labels are its quantiles.

    Args:
        labels: by task, as :class:`~mtl_deploy.calibration.data.dataset.CalibrationData` holds them.
        units: positions of images that stay together.
        shares: of the images, one per part, with a sum of 1; met as closely as the units allow.
        seed: the same seed gives the same parts.

    Returns:
        ``(units,)``: each unit's part. No part is empty if there are enough units.
    """
    random = np.random.default_rng(seed)
    sizes = np.array([len(unit) for unit in units], np.float64)
    owner = np.empty(int(sizes.sum()), np.intp)
    for number, unit in enumerate(units):
        owner[list(unit)] = number
    marks = [np.bincount(owner, one, len(units)) for one in _marks(labels, len(shares))]
    held: Floats = np.stack(marks, axis=1) if marks else np.zeros((len(units), 0))
    wanted = np.asarray(shares, np.float64)
    totals = held.sum(axis=0)
    lacking, room = np.outer(wanted, totals), wanted * sizes.sum()
    parts = np.full(len(units), -1, np.intp)

    def place(unit: int, wish: Floats, without: Positions) -> None:
        free = np.flatnonzero(room >= sizes[unit] / 2 - 1e-9)  # whichever is nearer
        free = free if len(free) else np.arange(len(room))
        free = narrower if len(narrower := np.intersect1d(free, without)) else free
        for figure in (wish, lacking @ (held[unit] / totals), room):
            free = free[np.isclose(figure[free], figure[free].max())]
        part = int(random.choice(free))
        parts[unit] = part
        room[part] -= sizes[unit]
        lacking[part] -= held[unit]

    while (left := np.count_nonzero(held[parts < 0], axis=0)).any():
        label = int(np.argmin(np.where(left > 0, left, len(units) + 1)))
        having = np.flatnonzero(held[:, label] > 0)
        waiting = random.permutation(having[parts[having] < 0])
        for number, unit in enumerate(waiting):
            without = np.setdiff1d(np.arange(len(room)), parts[having])
            scarce = len(waiting) - number <= len(without)  # no more units than parts that have none yet
            place(int(unit), lacking[:, label], without if scarce else np.arange(len(room)))
    for unit in random.permutation(np.flatnonzero(parts < 0)):
        place(int(unit), room, np.arange(len(room)))
    for part in range(len(shares)):
        if not (parts == part).any() and len(units) >= len(shares):
            largest = np.bincount(parts, minlength=len(shares)).argmax()
            parts[random.choice(np.flatnonzero(parts == largest))] = part
    return parts


def _marks(labels: Mapping[str, Labels], parts: int) -> list[Floats]:
    """Return one array per label of any task: which images have it, as 1.0 or 0.0."""
    found: list[Floats] = []
    for values in labels.values():
        present = known(values)
        if values.dtype.kind != "f":
            for column in values.reshape(len(values), -1).T:
                found += [np.asarray(column == label, np.float64) for label in np.unique(column[present])]
            continue
        bins = int(np.clip(np.count_nonzero(present) // (_IN_A_BIN * parts), 1, _BINS))
        for column in values.reshape(len(values), -1).T:
            ends = np.unique(np.quantile(column[present], np.arange(1, bins) / bins)) if present.any() else np.zeros(0)
            place = np.where(present, np.searchsorted(ends, np.nan_to_num(column), "right"), -1)
            found += [np.asarray(place == label, np.float64) for label in range(len(ends) + 1)]
    return [one for one in found if one.any()]
