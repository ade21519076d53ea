"""Two networks' losses on the same images: how much larger one's are, how certain that is, and how many images would decide."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task

from .bootstrap import paired_interval
from .paired_shares import Z, score_interval
from .row_metrics import drop_interval, row_kind

Floats = npt.NDArray[np.float64]

POWER_Z = 0.8416212335729143
"""Quantile of the normal distribution: 80 % lie below. A number of images is enough if it decides the question in 80 % of cases."""
FEWEST = 30
"""Least number of images for an interval of a mean: with fewer, the bootstrap's interval is too narrow (Hesterberg 2015)."""
_MOST = 10**9


class Sample(Protocol):
    """A task's drop between two networks, from images that both were run on."""

    @property
    def images(self) -> int:
        """Number of images."""
        ...

    @property
    def drop(self) -> float:
        """How much worse the first network's main metric is; infinite if its outputs are NaN or infinite."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """The drop's 95 % interval: each end is wrong in 2.5 % of cases."""
        ...

    def high_on(self, images: int, z: float = 0.0) -> float:
        """Return the upper end to expect with another number of such images, plus ``z`` standard errors."""
        ...

    def joined(self, other: Any) -> Sample:
        """Return both samples together: of the same networks and the same kind, on different images."""
        ...


@dataclass(frozen=True)
class MeanSample:
    """A metric that is a mean over images.

    Attributes:
        losses: ``(N,)``, of the network in question.
        reference: ``(N,)``, of the network that it is compared with.
        shares: whether an answer is right or wrong.
        seed: for the bootstrap.
    """

    losses: Floats
    reference: Floats
    shares: bool
    seed: int = 0

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.losses)

    @cached_property
    def drop(self) -> float:
        """The mean difference; infinite if a loss is."""
        return float((self.losses - self.reference).mean()) if self._finite else math.inf

    @cached_property
    def interval(self) -> tuple[float, float]:
        """For shares by a score test (:mod:`.paired_shares`), otherwise by bootstrap (:mod:`.bootstrap`)."""
        if not self._finite:
            return math.inf, math.inf
        _, low, high = paired_interval(self.losses, self.reference, shares=self.shares, seed=self.seed)
        return low, high if self.shares or self.images >= FEWEST else math.inf

    def high_on(self, images: int, z: float = 0.0) -> float:
        """Return the upper end to expect with another number of such images, plus ``z`` standard errors."""
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
        """Return both samples together."""
        return replace(
            self,
            losses=np.concatenate([self.losses, other.losses]),
            reference=np.concatenate([self.reference, other.reference]),
        )

    @cached_property
    def _reach(self) -> float:
        """Return how many standard errors the upper end lies above the drop: more than 1.96 if a few images have large losses."""
        error = float((self.losses - self.reference).std()) / math.sqrt(self.images)
        reach = (self.interval[1] - self.drop) / error if error else Z
        return max(reach, Z) if math.isfinite(reach) and self.images >= FEWEST else Z

    @cached_property
    def _finite(self) -> bool:
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.reference).all())


@dataclass(frozen=True)
class SumsSample:
    """A metric that is computed from a row of numbers per image, see :class:`~mtl_deploy.calibration.kinds.rows.RowKind`.

    Attributes:
        task: one whose images are rows.
        losses: ``(N, K)``, sums of the network in question, one image per row.
        reference: ``(N, K)``, sums of the network that it is compared with.
        seed: for the bootstrap.
        allowed: share of the reference's error that does not count as a drop, beyond ``taken``.
        taken: that share of the error, measured elsewhere, which the budget already includes.
    """

    task: Task
    losses: Floats
    reference: Floats
    seed: int = 0
    allowed: float = 0.0
    taken: float = 0.0

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.losses)

    @property
    def drop(self) -> float:
        """The difference of the metrics."""
        return self._found[0]

    @property
    def interval(self) -> tuple[float, float]:
        """The interval by bootstrap, see :func:`~mtl_deploy.calibration.accuracy.row_metrics.drop_interval`."""
        low, high = self._found[1:]
        return low, high if self.images >= FEWEST else math.inf

    def high_on(self, images: int, z: float = 0.0) -> float:
        """Return the upper end to expect with another number of such images, plus ``z`` standard errors."""
        drop, low, high = self._found
        if not math.isfinite(drop) or images < FEWEST:
            return math.inf
        return drop + (1 + z / Z) * (high - low) / 2 * math.sqrt(self.images / images)

    def joined(self, other: SumsSample) -> SumsSample:
        """Return both samples together."""
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
    """The losses of one network on some images.

    Attributes:
        task: whose losses they are.
        rows: ``(N,)``, figures to take the mean of: those of the main metric with their sign chosen so that larger is worse, or
            without labels whether the class changed against another network, or the distance from it. Or ``(N, K)``, the rows of a
            :class:`~mtl_deploy.calibration.kinds.rows.RowKind`. With labels, images without one are
            left out.
        labelled: whether there are labels; otherwise another network's outputs replace them.
        positions: ``(N,)``, the positions of the images that the rows belong to.
    """

    task: Task
    rows: Floats
    labelled: bool
    positions: npt.NDArray[np.intp]

    @property
    def figure(self) -> float:
        """The mean of the losses, or the main metric computed from the sums."""
        if self.rows.ndim == 2:
            kind = row_kind(self.task)
            return kind.measured(self.task, self.rows)[kind.main]
        return float(self.rows.mean())

    def joined(self, other: Losses) -> Losses:
        """Return the losses on these images and on others; the others' positions are counted on from the last one here."""
        behind = int(self.positions[-1]) + 1 if len(self.positions) else 0
        return Losses(
            self.task,
            np.concatenate([self.rows, other.rows]),
            self.labelled and other.labelled,
            np.concatenate([self.positions, other.positions + behind]),
        )

    def of(self, positions: npt.NDArray[np.intp]) -> Losses:
        """Return the losses on some of the images."""
        chosen = np.isin(self.positions, positions)
        return replace(self, rows=self.rows[chosen], positions=self.positions[chosen])

    def against(self, reference: Losses, seed: int = 0, *, allowed: float = 0.0, taken: float = 0.0) -> Sample:
        """Return how much worse this network is than another on the same images.

        Args:
            reference: the losses of the other network.
            seed: for the bootstrap.
            allowed: share of the reference's error that does not count as a drop, beyond ``taken``: so a budget that is a share of
                an error is tested with the uncertainty of that error.
            taken: that share of the error, measured elsewhere, which the budget already includes.
        """
        if self.rows.ndim == 2:
            return SumsSample(self.task, self.rows, reference.rows, seed, allowed, taken)
        shares = kind_of(self.task).right_or_wrong
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
        sample: shows how much the images differ.
        budget: for the drop.

    Returns:
        that number; None if the drop is not below the budget, so that no number would.
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
