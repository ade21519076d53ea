"""How the values of a graph's tensors are distributed on real images: one histogram per tensor, counted while the graph runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mtl_deploy.calibration.graph.typed import with_outputs
from mtl_deploy.runtime.errors import ImageError

from .session import ObservingSession
from .statistics import TensorStatistics, require_finite

BINS = 4096
"""Folded to magnitudes, a symmetric tensor has the 2048 bins of Migacz's calibration (see
:mod:`mtl_deploy.calibration.observe.ranges`)."""

_AT_ONCE = 1 << 17  # values: what counting them takes fits into a processor's cache
_SMALLEST_NORMAL, _LARGEST = (float(end) for end in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))

Counts = npt.NDArray[np.int64]
Magnitudes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Histogram:
    """The values of one tensor over all batches.

    Attributes:
        counts: ``(bins,) int64``: number of values per bin, at least :data:`BINS` of them. They have equal widths and reach from
            ``low`` to ``high``, except where ``first`` says otherwise.
        low: the smallest value.
        high: the largest value.
        zeros: number of values that are exactly zero, as a ReLU gives them; quantization does not round them. They are in
            ``counts`` as well.
        channel_absmax: ``(C,) float64``, the largest magnitude per channel (axis 1); None if the tensor has no such axis.
        first: where the first bin begins, at ``low`` or below; the last one ends at ``high`` or above. None: at ``low``.
        width: of a bin; None: what ``low`` and ``high`` make of it.
    """

    counts: Counts
    low: float
    high: float
    zeros: int = 0
    channel_absmax: Magnitudes | None = None
    first: float | None = None
    width: float | None = None

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def edges(self) -> Magnitudes:
        """``(bins + 1,) float64``: where bins begin and end, none beyond ``low`` and ``high``."""
        count = len(self.counts)
        if self.first is None or self.width is None:
            return np.linspace(self.low, self.high, count + 1)
        return np.clip(self.first + self.width * np.arange(count + 1), self.low, self.high)

    @property
    def centers(self) -> Magnitudes:
        """``(bins,) float64``: the middle of each bin."""
        edges = self.edges
        return np.asarray((edges[:-1] + edges[1:]) / 2, np.float64)


def collect(
    model: onnx.ModelProto,
    names: Sequence[str],
    batches: Iterable[npt.NDArray[np.generic]],
    observed: Mapping[str, TensorStatistics],
    threads: int | None = None,
) -> dict[str, Histogram]:
    """Run a graph on batches and count the values of some of its tensors.

    All values of a batch are in memory at once, so small batches keep memory low (ResNet-50 at 224 by 224: about 60 MB per image).
    Where that is too much for one image, call it for some of the tensors at a time.

    Args:
        model: a graph with one input. It is not changed.
        names: ``float32`` tensors of it.
        batches: arrays for the graph's input, the same that ``observed`` comes from. A value beyond what was observed is counted in
            the first or last bin.
        observed: see :func:`~mtl_deploy.calibration.observe.statistics.observe`.
        threads: of ONNX Runtime; None: one per core.

    Returns:
        by name, in the order of ``names``.

    Raises:
        ImageError: there is no batch.
        WorkError: a tensor holds NaN or infinity.
        RunError: ONNX Runtime failed.
    """
    if not names:  # ONNX Runtime takes no names for all of them
        return {}
    for name in names:
        require_finite(name, observed)
    counting = {name: _Counting(observed[name]) for name in names}
    batch = None
    with closing(ObservingSession(with_outputs(model, names), names, threads=threads)) as session:
        for batch in batches:
            found = session.run({model.graph.input[0].name: batch}, names)
            for name in names:
                counting[name].add(found.pop(name))
    if batch is None:
        raise ImageError("there are no images to count activations on; give at least one batch")
    return {name: one.histogram() for name, one in counting.items()}


class _Counting:
    """One tensor's histogram while it is counted."""

    def __init__(self, seen: TensorStatistics) -> None:
        self._low, self._high = seen.minimum, seen.maximum
        self._width = (self._high - self._low) / BINS
        self._counts = np.zeros(BINS, np.int64)
        self._values = Tally()

    def add(self, values: npt.NDArray[np.float32]) -> None:
        self._values.add(values)
        self._counts += counted(values.ravel(), self._low, self._width, BINS)

    def histogram(self) -> Histogram:
        return Histogram(self._counts, self._low, self._high, self._values.zeros, self._values.channel_absmax)


class Tally:
    """What is counted of a tensor beside its bins.

    Attributes:
        zeros: as in :class:`Histogram`.
        channel_absmax: as in :class:`Histogram`.
        lows: ``(N,)``: the smallest value of each row (axis 0) of the last batch.
        highs: ``(N,)``: the largest ones.
    """

    def __init__(self) -> None:
        self.zeros = 0
        self.channel_absmax: Magnitudes | None = None
        self.lows: Magnitudes = np.zeros(0)
        self.highs: Magnitudes = np.zeros(0)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count a batch; its channels are axis 1."""
        self.zeros += values.size - int(np.count_nonzero(values != 0))  # of floats, NumPy counts slowly
        rows, channels = (*values.shape, 1, 1)[:2]
        apart = values.reshape(rows, channels, -1)
        highest, lowest = apart.max(axis=2).astype(np.float64), apart.min(axis=2).astype(np.float64)
        self.lows, self.highs = lowest.min(axis=1), highest.max(axis=1)
        if values.ndim < 2:
            return
        largest = np.maximum(highest, -lowest).max(axis=0)
        if self.channel_absmax is None:
            self.channel_absmax = largest
        elif len(self.channel_absmax) == len(largest):
            self.channel_absmax = np.maximum(self.channel_absmax, largest)


def counted(flat: npt.NDArray[np.float32], first: float, width: float, bins: int) -> Counts:
    """Count values in bins of equal width; those beyond the bins count in the first or the last one.

    Args:
        flat: the values.
        first: where the first bin begins.
        width: of a bin; 0: all values are equal.
        bins: their number.

    Returns:
        ``(bins,) int64``.
    """
    # float32 counts as exactly as bins need, except where a bin would be narrower than its smallest normal number (then its inverse
    # may be infinite), or where differences exceed its largest.
    kind: Any = np.float32 if width >= _SMALLEST_NORMAL and width * bins <= _LARGEST else np.float64
    bins_per_unit = kind(1 / width if width > 0 else 0.0)
    counts = np.zeros(bins, np.int64)
    for start in range(0, flat.size, _AT_ONCE):
        positions = flat[start : start + _AT_ONCE].astype(kind, copy=False) - kind(first)
        positions *= bins_per_unit
        np.clip(positions, 0, bins - 1, out=positions)
        counts += np.bincount(positions.astype(np.int32), minlength=bins)
    return counts
