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
from mtl_deploy.runtime.errors import ImageError, WorkError

from .session import ObservingSession
from .statistics import TensorStatistics

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
        counts: ``(BINS,) int64``: number of values per bin; the bins have equal widths and reach from ``low`` to ``high``.
        low: the smallest value.
        high: the largest value.
        zeros: number of values that are exactly zero, as a ReLU gives them; quantization does not round them. They are in
            ``counts`` as well.
        channel_absmax: ``(C,) float64``, the largest magnitude per channel (axis 1); None if the tensor has no such axis.
    """

    counts: Counts
    low: float
    high: float
    zeros: int = 0
    channel_absmax: Magnitudes | None = None

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def centers(self) -> Magnitudes:
        """``(BINS,) float64``: the middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)


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
        if name not in observed:
            raise WorkError(f"tensor {name!r}: its values cannot be observed, as it is not a float tensor of the graph")
        if not observed[name].finite:
            raise WorkError(
                f"tensor {name!r} is NaN or infinite in FP32 on the calibration images, so it has no range; fix the network, "
                "or leave the nodes that read it out of INT8"
            )
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
        span = self._high - self._low
        # float32 counts as exactly as bins need, except where a bin would be narrower than its smallest normal number (then
        # `BINS / span` is infinite), or where differences exceed its largest.
        self._type: Any = np.float32 if span / BINS >= _SMALLEST_NORMAL and span <= _LARGEST else np.float64
        self._bins_per_unit = self._type(BINS / span if span > 0 else 0.0)
        self._counts = np.zeros(BINS, np.int64)
        self._zeros = 0
        self._channels: Magnitudes | None = None

    def add(self, values: npt.NDArray[np.float32]) -> None:
        flat = values.ravel()
        for start in range(0, flat.size, _AT_ONCE):
            positions = flat[start : start + _AT_ONCE].astype(self._type, copy=False) - self._type(self._low)
            positions *= self._bins_per_unit
            np.clip(positions, 0, BINS - 1, out=positions)
            self._counts += np.bincount(positions.astype(np.int32), minlength=BINS)
        self._zeros += flat.size - int(np.count_nonzero(flat != 0))  # of floats, NumPy counts slowly
        if values.ndim > 1:
            axes = tuple(axis for axis in range(values.ndim) if axis != 1)
            largest = np.maximum(values.max(axis=axes), -values.min(axis=axes)).astype(np.float64)
            if self._channels is None:
                self._channels = largest
            elif len(self._channels) == len(largest):
                self._channels = np.maximum(self._channels, largest)

    def histogram(self) -> Histogram:
        return Histogram(self._counts, self._low, self._high, self._zeros, self._channels)
