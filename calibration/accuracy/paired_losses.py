"""What two networks lost on the same images: how much more the one did, how sure that is, and how many images would settle it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task

from .bootstrap import paired_interval
from .map_metrics import drop_interval, figures
from .paired_shares import Z, score_interval

Floats = npt.NDArray[np.float64]

POWER_Z = 0.8416212335729143
"""Of the normal distribution: 80 % lie below. A number of images is enough where it settles the question in so many of cases."""
FEWEST = 30
"""Images that an interval of a mean needs at least: on fewer the bootstrap's is too narrow (Hesterberg 2015)."""
_MOST = 10**9


class Sample(Protocol):
    """A task's drop between two networks, from images that both answered for."""

    @property
    def images(self) -> int:
        """How many there are."""
        ...

    @property
    def drop(self) -> float:
        """How much worse the first network's main metric is; infinite where it gives no numbers."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """The drop's 95 % interval: each end is wrong in 2.5 % of cases."""
        ...

    def high_on(self, images: int, z: float = 0.0) -> float:
        """Return the upper end to be expected on another number of such images, plus ``z`` standard errors."""
        ...

    def joined(self, other: Any) -> Sample:
        """Return what both say together: of the same networks and kind, on other images."""
        ...


@dataclass(frozen=True)
class MeanSample:
    """A metric that is a mean over images.

    Attributes:
        losses: ``(N,)``, of the network in question.
        reference: ``(N,)``, of the one that it is compared with.
        shares: whether a loss is of right or wrong.
        seed: of the bootstrap.
    """

    losses: Floats
    reference: Floats
    shares: bool
    seed: int = 0

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.losses)

    @cached_property
    def drop(self) -> float:
        """The mean difference; infinite where a loss is."""
        return float((self.losses - self.reference).mean()) if self._finite else math.inf

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Of shares by a score test (:mod:`.paired_shares`); otherwise by bootstrap (:mod:`.bootstrap`)."""
        if not self._finite:
            return math.inf, math.inf
        _, low, high = paired_interval(self.losses, self.reference, shares=self.shares, seed=self.seed)
        return low, high if self.shares or self.images >= FEWEST else math.inf

    def high_on(self, images: int, z: float = 0.0) -> float:
        """Return the upper end to be expected on another number of such images, plus ``z`` standard errors."""
        if not self._finite:
            return math.inf
        differences = self.losses - self.reference
        error = float(differences.std()) / math.sqrt(images)
        if self.shares:
            share = images / self.images
            worse, better = float((differences > 0).sum()), float((differences < 0).sum())
            return score_interval(share * worse, share * better, images)[1] + z * error
        if images < FEWEST:
            return math.inf
        return self.drop + (self._reach + z) * error

    def joined(self, other: MeanSample) -> MeanSample:
        """Return what both say together."""
        return replace(
            self,
            losses=np.concatenate([self.losses, other.losses]),
            reference=np.concatenate([self.reference, other.reference]),
        )

    @cached_property
    def _reach(self) -> float:
        """Return how many standard errors the upper end lies above the drop: more than 1.96 where few images lose much."""
        error = float((self.losses - self.reference).std()) / math.sqrt(self.images)
        reach = (self.interval[1] - self.drop) / error if error else Z
        return max(reach, Z) if math.isfinite(reach) and self.images >= FEWEST else Z

    @cached_property
    def _finite(self) -> bool:
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.reference).all())


@dataclass(frozen=True)
class SumsSample:
    """A metric that comes from sums over all images, see :mod:`mtl_deploy.calibration.accuracy.map_metrics`.

    Attributes:
        task: a dense one.
        losses: ``(N, K)``, sums of the network in question, an image a row.
        reference: ``(N, K)``, of the one that it is compared with.
        seed: of the bootstrap.
        allowed: share of the reference's error that does not count as a drop, beyond ``taken``.
        taken: that share of the error, measured elsewhere, which the budget has already.
    """

    task: Task
    losses: Floats
    reference: Floats
    seed: int = 0
    allowed: float = 0.0
    taken: float = 0.0

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.losses)

    @property
    def drop(self) -> float:
        """The difference of the metrics."""
        return self._found[0]

    @property
    def interval(self) -> tuple[float, float]:
        """By bootstrap, see :func:`~mtl_deploy.calibration.accuracy.map_metrics.drop_interval`."""
        low, high = self._found[1:]
        return low, high if self.images >= FEWEST else math.inf

    def high_on(self, images: int, z: float = 0.0) -> float:
        """Return the upper end to be expected on another number of such images, plus ``z`` standard errors."""
        drop, low, high = self._found
        if not math.isfinite(drop) or images < FEWEST:
            return math.inf
        return drop + (1 + z / Z) * (high - low) / 2 * math.sqrt(self.images / images)

    def joined(self, other: SumsSample) -> SumsSample:
        """Return what both say together."""
        return replace(
            self,
            losses=np.concatenate([self.losses, other.losses]),
            reference=np.concatenate([self.reference, other.reference]),
        )

    @cached_property
    def _found(self) -> tuple[float, float, float]:
        found = drop_interval(self.task, self.losses, self.reference, self.seed, factor=1 + self.allowed)
        drop, low, high = (end + self.taken for end in found)
        return drop, low, high


@dataclass(frozen=True)
class Losses:
    """What one network lost on some images.

    Attributes:
        task: whose.
        rows: ``(N,)``, what a mean is taken of: the main metric with a sign that makes more be worse, and without labels the share
            that changed against another network or the distance from it. Or ``(N, K)``, sums of a dense task, see
            :func:`~mtl_deploy.calibration.accuracy.map_metrics.picture_sums`. Images of which nothing is known are left out.
        labelled: whether the truth is known; otherwise another network's answers stand for it.
        positions: ``(N,)``, which of the images the rows are of.
    """

    task: Task
    rows: Floats
    labelled: bool
    positions: npt.NDArray[np.intp]

    @property
    def figure(self) -> float:
        """The mean of the losses, or the main metric that comes from the sums."""
        if self.rows.ndim == 2:
            return float(next(iter(figures(self.task, self.rows.sum(axis=0)).values())))
        return float(self.rows.mean())

    def joined(self, other: Losses) -> Losses:
        """Return the same network's on these images and others; positions go on counting from the first's last."""
        behind = int(self.positions[-1]) + 1 if len(self.positions) else 0
        return Losses(
            self.task,
            np.concatenate([self.rows, other.rows]),
            self.labelled and other.labelled,
            np.concatenate([self.positions, other.positions + behind]),
        )

    def of(self, positions: npt.NDArray[np.intp]) -> Losses:
        """Return those of some of the images alone."""
        chosen = np.isin(self.positions, positions)
        return replace(self, rows=self.rows[chosen], positions=self.positions[chosen])

    def against(self, reference: Losses, seed: int = 0, *, allowed: float = 0.0, taken: float = 0.0) -> Sample:
        """Return how much worse this network is than another on the same images.

        Args:
            reference: the other's.
            seed: of the bootstrap.
            allowed: share of the reference's error that does not count as a drop, beyond ``taken``: so that a budget that is a
                share of an error holds however well the error is known.
            taken: that share of the error, measured elsewhere, which the budget has already.
        """
        if self.rows.ndim == 2:
            return SumsSample(self.task, self.rows, reference.rows, seed, allowed, taken)
        shares = self.task.kind in ("binary", "multiclass")
        return MeanSample(self.rows + taken - allowed * reference.rows, reference.rows, shares, seed)


def within(sample: Sample, budget: float) -> bool:
    """Return whether the images show that a drop is within a budget: the upper end of its interval is."""
    return sample.interval[1] <= budget


def beyond(sample: Sample, budget: float) -> bool:
    """Return whether the images show that a drop is beyond a budget: the lower end of its interval is."""
    return sample.interval[0] > budget


def images_needed(sample: Sample, budget: float) -> int | None:
    """Return about how many images would show in 80 % of cases that a drop is within its budget.

    Args:
        sample: says how much images differ.
        budget: of the drop.

    Returns:
        that number; None where the drop is not below the budget, so that no number would.
    """
    if not sample.drop < budget:
        return None
    few, many = 0, 1
    while sample.high_on(many, POWER_Z) > budget:
        few, many = many, 2 * many
        if many > _MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        if sample.high_on(middle, POWER_Z) > budget:
            few = middle
        else:
            many = middle
    return many
