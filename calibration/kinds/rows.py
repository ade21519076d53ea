"""Kinds of which each image becomes one row of numbers: outputs are too large to keep, or the metric is no mean over images."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

from .base import Array, CalibrationKind, Floats, Usual


class Variation(Protocol):
    """How much answers vary from image to image, gathered one by one."""

    def add(self, answer: Any) -> None:
        """Add an image's answer."""
        ...

    @property
    def ignoring(self) -> float:
        """Mean error of an answer that does not look at the image; 0 if nothing varies."""
        ...


class RowKind(CalibrationKind):
    """A kind of which each image becomes one row of numbers; the outputs themselves are not kept.

    Attributes:
        one_value: what a network gives whose answers are all alike, see :meth:`ends`.
    """

    by_rows = True
    one_value: ClassVar[str] = "one value for all pixels of all images"

    def answers(self, task: Task, output: Array, signature: Signature) -> list[Any]:
        """Return what a graph says for each image of a batch, decoded at the network's size."""
        raise NotImplementedError

    def row(self, task: Task, answer: Any, truth: Any) -> Floats:
        """Return one image's row ``(K,)``, K being the same for all images: what its metrics are computed from."""
        raise NotImplementedError

    def has_truth(self, task: Task, rows: Floats) -> npt.NDArray[np.bool_]:
        """Return which of the rows ``(N, K)`` have anything to judge."""
        return np.asarray(rows.sum(axis=1) > 0)

    def measured(self, task: Task, rows: Floats) -> dict[str, float]:
        """Return the metrics by key, the main one first, of the images whose rows ``(N, K)`` these are."""
        raise NotImplementedError

    def drawn(self, task: Task, rows: Floats, counts: Floats) -> Floats:
        """Return the main metric of samples drawn with replacement, for its interval.

        Args:
            task: the task.
            rows: ``(N, K)``.
            counts: ``(draws, N)``: how often each image is in each draw.
        """
        raise NotImplementedError

    def apart(self, task: Task, answer: Any, reference: Any) -> tuple[float, float]:
        """Return the mean and the largest difference of two answers to one image, in :meth:`unit` or as shares."""
        raise NotImplementedError

    def ends(self, task: Task, answer: Any) -> tuple[Array, Array] | None:
        """Return the least and the greatest value of an answer, which tell whether all are alike; None: that is not judged."""
        return None

    def variation(self, task: Task) -> Variation:
        """Return what gathers how much answers vary."""
        raise NotImplementedError

    def spread_row(self, task: Task, expected: Any, found: Any) -> Floats:
        """Return one image's row for :meth:`relative`: the error, and what the spread is computed from."""
        raise NotImplementedError

    def spread_rows(self, task: Task, expected: Any, found: Any) -> Floats:
        """Return one row per image of a batch of :meth:`answers`."""
        return np.stack([self.spread_row(task, one, other) for one, other in zip(expected, found, strict=True)])

    def same_answer(self, task: Task, rows: Floats) -> str | None:
        """Return, where a network gave all pixels of all images one value, what to say of it; None: it is right to.

        The text is put behind :attr:`one_value`, such as `` ('sky')``; it may be empty.
        """
        return ""

    def usual_rows(self, task: Task, rows: Floats) -> Usual | None:
        """Return the best answer that does not look at the image, with the rows that it would have; None: there is none to beat."""
        return None
