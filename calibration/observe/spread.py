"""How much a network's outputs vary over images: the scale that their errors are judged by.

The largest value is not such a scale: a head that answers 2005.5 plus or minus 0.4 would pass with its weights set to zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DEVIATIONS = 4.0
"""A spread is this many standard deviations: two on each side of the mean, where 95 % of normally distributed values lie."""


class Spread:
    """The spread of each channel, from values that arrive in batches."""

    def __init__(self) -> None:
        self._count = 0
        self._origin: Floats | None = None  # near the mean, so that squares do not cancel
        self._sum: Floats = np.zeros(0)
        self._squares: Floats = np.zeros(0)
        self._largest: Floats = np.zeros(0)

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Add values ``(N, C, ...)``: ``C`` channels at any number of positions."""
        flat = values.reshape(len(values), values.shape[1], -1).astype(np.float64)
        if self._origin is None:
            self._origin = flat.mean(axis=(0, 2))
            self._sum, self._squares, self._largest = (np.zeros(flat.shape[1]) for _ in range(3))
        apart = flat - self._origin[:, None]
        self._count += flat.shape[0] * flat.shape[2]
        self._sum += apart.sum(axis=(0, 2))
        self._squares += (apart**2).sum(axis=(0, 2))
        self._largest = np.maximum(self._largest, np.abs(flat).max(axis=(0, 2), initial=0))

    @property
    def each(self) -> Floats:
        """The spread of each channel, ``(C,)``."""
        count = max(self._count, 1)
        variance: Floats = np.maximum(self._squares / count - (self._sum / count) ** 2, 0)
        return DEVIATIONS * np.sqrt(variance)

    @property
    def pooled(self) -> Floats:
        """The root of the mean square of all channels' spreads, ``(1,)``."""
        return np.sqrt(np.mean(self.each**2, keepdims=True)) if self._count else np.zeros(1)

    @property
    def largest(self) -> Floats:
        """The largest magnitude of each channel, ``(C,)``."""
        return self._largest


def spread(values: npt.NDArray[np.floating]) -> Floats:
    """Return the spread of each channel of values ``(N, C, ...)``."""
    found = Spread()
    found.add(values)
    return found.each
