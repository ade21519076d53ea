"""Pixels that got another class, or another direction: judged by how sure the network itself was of its own.

A class index is right or wrong, so an error counts by its margin: by how much the network prefers its own class to the one that
the pixel got. A unit vector points the less clearly the shorter the network's vector was before it was normalised, so its error is
multiplied by that length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task

from .expected import Outputs
from .tensor_errors import Floats

ONE_PIXEL = 10.0  # how many times the root mean square one pixel may be off: the largest of a million is far out


@dataclass(frozen=True)
class MarginVerdict:
    """How the margins do.

    Attributes:
        each: ``(N,)``: the excess of each image, as a multiple of what is allowed.
        error: the largest margin.
        decides: what is allowed on the worst image.
        mean: the mean margin.
    """

    each: Floats
    error: float
    decides: float
    mean: float


class MarginErrors:
    """The margins of one task, gathered batch by batch."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._largest: list[Floats] = []
        self._sum, self._count = 0.0, 0

    def add(self, found: Outputs, wanted: Outputs, raw: Outputs) -> None:
        """Add a batch: what the graph gave, what it must give, and the network's raw map ``(N, C, h, w)``."""
        margin = kind_of(self._task).lost(self._task, found, wanted, raw)
        self._largest.append(margin.reshape(len(margin), -1).max(axis=1))
        self._sum += float(margin.sum())
        self._count += margin.size

    def judged(self, allowed: Floats, precision: str) -> MarginVerdict:
        """Judge the margins by the error ``(N, K)`` that is allowed in the raw map."""
        factor = 2 * (ONE_PIXEL if precision != "fp32" else 1)  # one value may be too small, another too large
        largest = np.concatenate(self._largest)
        limit = factor * allowed.max(axis=1)
        excess = largest / limit
        worst = int(np.argmax(np.nan_to_num(excess, nan=np.inf)))
        return MarginVerdict(excess, float(largest.max()), float(limit[worst]), self._sum / max(self._count, 1))
