"""Histograms of tensors whose ranges are not known yet: bins are added where values lie beyond them.

So ranges and histograms come from one pass over the images. NVIDIA's pytorch-quantization adds bins as well
(``calib/histogram.py``). If there are too many, each two become one, so no value changes its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .histograms import BINS, Counts, Histogram, Tally, counted
from .statistics import TensorStatistics, require_finite

MOST = 2 * BINS
"""Bins; after two have become one, there are still at least :data:`~mtl_deploy.calibration.observe.histograms.BINS` of them."""


class GrowingHistograms:
    """Histograms of a graph's tensors while it runs.

    Args:
        names: of the tensors.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._growing = {name: _Growing() for name in names}

    def add(self, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Count a batch.

        Args:
            values: of each tensor.
        """
        for name, growing in self._growing.items():
            growing.add(values[name])

    def histograms(self, observed: Mapping[str, TensorStatistics]) -> dict[str, Histogram]:
        """Return the histograms by name.

        Args:
            observed: the ranges of the same values.

        Raises:
            WorkError: a tensor holds NaN or infinity.
        """
        for name in self._growing:
            require_finite(name, observed)
        return {name: growing.histogram(observed[name]) for name, growing in self._growing.items()}


class _Growing:
    """One tensor's histogram: ``counts`` from ``first`` on, in bins of one width; a width of 0 as long as all values are equal."""

    def __init__(self) -> None:
        self._first = self._width = 0.0
        self._counts: Counts = np.zeros(0, np.int64)
        self._values = Tally()

    def add(self, values: npt.NDArray[np.float32]) -> None:
        self._values.add(values)
        lows, highs = self._values.lows, self._values.highs
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            return  # there will be no histogram
        for low, high in zip(
            lows.tolist(), highs.tolist(), strict=True
        ):  # row by row: bins do not depend on the size of batches
            if not self._counts.size:
                self._begin(low, high, 0)
            elif not self._width and not low == high == self._first:
                self._begin(min(low, self._first), max(high, self._first), int(self._counts.sum()))
            self._reach(low, high)
        self._counts += counted(values.ravel(), self._first, self._width, len(self._counts))

    def _begin(self, low: float, high: float, equal: int) -> None:
        """Begin with bins between two values; so many values, all equal, were counted before."""
        before = np.full(1, self._first, np.float32)
        self._first, self._width = low, (high - low) / BINS
        self._counts = equal * counted(before, low, self._width, BINS) if equal else np.zeros(BINS, np.int64)

    def _reach(self, low: float, high: float) -> None:
        """Add bins, so that they hold these values."""
        if not self._width or self._first <= low <= high <= self._first + self._width * len(self._counts):
            return
        while True:
            end = self._first + self._width * len(self._counts)
            below = max(math.ceil((self._first - low) / self._width), 0)
            above = max(math.ceil((high - end) / self._width), 0)
            if len(self._counts) + below + above <= MOST:
                break
            self._counts = np.pad(self._counts, (0, len(self._counts) % 2)).reshape(-1, 2).sum(axis=1)
            self._width *= 2
        self._first -= below * self._width
        self._counts = np.pad(self._counts, (below, above))

    def histogram(self, seen: TensorStatistics) -> Histogram:
        values = self._values
        ends = seen.minimum, seen.maximum, values.zeros, values.channel_absmax
        if not self._width:
            return Histogram(self._counts, *ends)
        used = min(max(math.ceil((seen.maximum - self._first) / self._width), 1), len(self._counts))
        self._counts[used - 1] += self._counts[used:].sum()  # none, but for rounding
        return Histogram(self._counts[:used], *ends, self._first, self._width)
