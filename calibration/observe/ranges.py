"""Choosing the interval that a tensor's 8 bits cover, from its histogram.

Each method looks for a threshold: a small one rounds finely and clips a lot, a large one rounds coarsely and clips little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import OptionError

from .histograms import Histogram

Method = Literal["minmax", "percentile", "mse", "entropy"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse", "entropy")

PERCENTILE = 99.999
"""Percent of the values. Wu et al., "Integer Quantization for Deep Learning Inference" (https://arxiv.org/abs/2004.09602), try 99.9
to 99.9999; ONNX Runtime uses this one. 99.99 clips ten times as many of the largest values, which decide between classes."""

LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""The smallest normal float32. A graph's scales are float32: a smaller one is rounded coarsely or to zero, and what is divided by
it overflows. A tensor that would need one is rounded to zero instead, which errs by less than 255 such steps."""

_GRID = 160  # thresholds that MSE tries
_SMALLEST = 1 / 512  # of the largest magnitude: an outlier a hundred times as large as the rest must not hide it
_MAGNITUDE_BINS = 2048  # Migacz, slide "Algorithm": 2048 bins, 128 levels
_ENTROPY_STEP = 8  # bins between two thresholds that entropy tries
_AROUND = 8  # bins on each side for the running median

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """The interval of a tensor's values that is represented; values beyond it are clipped to its ends.

    Attributes:
        low: zero or below.
        high: zero or above.
    """

    low: float
    high: float

    @property
    def symmetric_scale(self) -> float:
        """The scale of S8 from -127 to 127 with zero point 0; 1 for a tensor of zeros, or of values below :data:`LEAST_SCALE`."""
        scale = max(abs(self.low), abs(self.high)) / 127
        return scale if scale >= LEAST_SCALE else 1.0

    def asymmetric(self) -> tuple[float, int]:
        """Return scale and zero point of U8: zero is exact, and the interval covers at least ``low`` to ``high``.

        They are 1 and 0 for a tensor of zeros, or of values below :data:`LEAST_SCALE`.
        """
        scale = (self.high - self.low) / 255
        if scale < LEAST_SCALE:
            return 1.0, 0
        return scale, round(-self.low / scale)


def choose(histogram: Histogram, method: str, *, symmetric: bool = True) -> Range:
    """Choose a tensor's range.

    - ``minmax``: all observed values. Nothing is clipped, and a single outlier sets the scale.
    - ``percentile``: 99.999 percent of the values lie inside (Wu et al. 2020); for S8 of their magnitudes, for U8 with equally many
      beyond each end.
    - ``mse``: the threshold of a grid with the smallest expected squared error: for clipped values their distance squared, for the
      others the scale squared over twelve (Banner et al. 2019, "Post training 4-bit quantization of convolutional
      networks for rapid-deployment", https://arxiv.org/abs/1810.05723). Zeros are exact and add no error.
    - ``entropy``: the threshold whose quantized distribution has the smallest Kullback-Leibler divergence from the original
      (Migacz 2017, "8-bit Inference with TensorRT", GTC 2017 S7310). It tries thresholds down to a sixteenth of the largest
      magnitude, so it cannot exclude an outlier that is a hundred times as large as the rest.

    Args:
        histogram: of the tensor's values.
        method: one of :data:`METHODS`.
        symmetric: whether it is for S8 with zero point 0, whose 127 steps must cover the larger side; False: for U8, whose 255
            steps are fitted to both sides. It affects all methods but ``minmax``.

    Raises:
        OptionError: there is no such method.
    """
    if method not in METHODS:
        raise OptionError(f"there is no calibration method {method!r}; the methods are {', '.join(METHODS)}")
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if method == "minmax" or low == high:
        return Range(low, high)
    if method == "mse" and not symmetric:
        return _smallest_error_of_both_ends(histogram, low, high)
    if method == "percentile" and not symmetric:
        return _percentile_of_both_ends(histogram, low, high)
    if method == "mse":
        threshold = _smallest_error(histogram)
    elif method == "percentile":
        threshold = _percentile(histogram)
    else:
        threshold = _entropy(histogram, levels=128 if symmetric or low < 0 else 256)
    return Range(max(low, -threshold), min(high, threshold))


def expected_error(histogram: Histogram, chosen: Range, *, symmetric: bool) -> float:
    """Return the mean squared error to expect of a range, by the model of ``mse`` in :func:`choose`."""
    step = chosen.symmetric_scale if symmetric else chosen.asymmetric()[0]
    reach = 127 * step if symmetric else None
    low = chosen.low if reach is None else -reach
    high = chosen.high if reach is None else reach
    clipped_low, below = _clipping(-histogram.centers, histogram.counts, np.array([-low]))
    clipped_high, above = _clipping(histogram.centers, histogram.counts, np.array([high]))
    rounded = max(histogram.total - histogram.zeros - below[0] - above[0], 0.0)
    return float(clipped_low[0] + clipped_high[0] + rounded * step**2 / 12) / max(histogram.total, 1)


def _percentile(histogram: Histogram) -> float:
    magnitudes = np.abs(histogram.centers)
    order = np.argsort(magnitudes, kind="stable")
    below = np.cumsum(histogram.counts[order])
    position = int(np.searchsorted(below, below[-1] * PERCENTILE / 100))
    return float(magnitudes[order][min(position, len(order) - 1)])


def _percentile_of_both_ends(histogram: Histogram, low: float, high: float) -> Range:
    below = np.cumsum(histogram.counts)
    total, beyond = below[-1], below[-1] * (100 - PERCENTILE) / 200
    edges = histogram.edges
    first = float(edges[np.searchsorted(below, beyond, "right")])
    last = float(edges[min(np.searchsorted(below, total - beyond), len(below) - 1) + 1])
    return Range(min(max(low, first), 0.0), max(min(high, last), 0.0))


def _smallest_error(histogram: Histogram) -> float:
    thresholds = histogram.absmax * np.geomspace(_SMALLEST, 1, _GRID)
    clipped, outside = _clipping(np.abs(histogram.centers), histogram.counts, thresholds)
    rounded = np.maximum(histogram.total - histogram.zeros - outside, 0)
    return float(thresholds[np.argmin(clipped + rounded * (thresholds / 127) ** 2 / 12)])


def _smallest_error_of_both_ends(histogram: Histogram, low: float, high: float) -> Range:
    shares = np.geomspace(_SMALLEST, 1, _GRID)
    lows, highs = -low * shares if low < 0 else np.zeros(1), high * shares if high > 0 else np.zeros(1)
    clipped_low, below = _clipping(-histogram.centers, histogram.counts, lows)
    clipped_high, above = _clipping(histogram.centers, histogram.counts, highs)
    rounded = np.maximum(histogram.total - histogram.zeros - below[:, None] - above, 0)
    steps = (lows[:, None] + highs) / 255
    error = clipped_low[:, None] + clipped_high + rounded * steps**2 / 12
    first, second = np.unravel_index(np.argmin(error), error.shape)
    return Range(-float(lows[first]), float(highs[second]))


def _clipping(values: Floats, counts: npt.NDArray[np.int64], thresholds: Floats) -> tuple[Floats, Floats]:
    """Return the squared error of clipping at each threshold, and how many values lie beyond it."""
    order = np.argsort(values)[::-1]
    ordered, weights = values[order], counts[order].astype(np.float64)
    number, first, second = (np.concatenate([[0.0], np.cumsum(weights * ordered**power)]) for power in range(3))
    beyond = np.searchsorted(-ordered, -thresholds)  # the first `beyond` values exceed the threshold
    outside: Floats = number[beyond]
    return np.maximum(second[beyond] - 2 * thresholds * first[beyond] + thresholds**2 * outside, 0), outside


def _entropy(histogram: Histogram, levels: int) -> float:
    """Find the threshold with the smallest divergence, like Migacz's pseudocode, but of the density instead of the counts.

    Merging bins adds divergence even if their counts differ only by chance, or because some values occur very often (a flat
    background), which round like any other. Both effects grow with the threshold, so small thresholds would look better than they
    are. So a running median replaces the counts. In a sparse tail, where the median is zero, the counts stay, and the divergence
    that chance alone causes on average is subtracted: half the number of merged bins over the number of values, as twice that
    number times the divergence follows a chi-squared distribution (Wilks 1938).
    """
    width = histogram.absmax / _MAGNITUDE_BINS
    counts = _magnitudes(histogram)
    # The zeros of a ReLU are exact at any scale and would outweigh everything else; NVIDIA's pytorch-quantization does the same
    # (calib/histogram.py, _compute_amax_entropy: bins[0] = bins[1]).
    counts[0] = counts[1]
    beyond = counts.sum() - np.cumsum(counts)
    density, counted = _density(counts)
    best, smallest = _MAGNITUDE_BINS, np.inf
    for size in range(levels, _MAGNITUDE_BINS + 1, _ENTROPY_STEP):
        inside = density[:size]
        reference = inside.copy()
        reference[-1] += beyond[size - 1]
        level = np.arange(size) * levels // size
        filled = inside > 0
        sums, shares, by_count = (
            np.bincount(level, weights=one, minlength=levels) for one in (inside, filled, filled & counted[:size])
        )
        candidate = np.where(filled, (sums / np.maximum(shares, 1))[level], 0)
        merged = float(np.maximum(by_count - 1, 0).sum())
        divergence = _divergence(reference, candidate) - merged / (2 * max(float(reference.sum()), 1.0))
        if divergence < smallest:
            best, smallest = size, divergence
    return float(best * width)


def _magnitudes(histogram: Histogram) -> Floats:
    """Return a histogram of magnitudes; a bin that overlaps two of its bins is divided by the overlap.

    If such bins were assigned as a whole, they would leave a ripple that looks like information to ``entropy``.
    """
    edges = histogram.edges
    below = np.concatenate([[0.0], np.cumsum(histogram.counts)])
    ends = np.linspace(0, histogram.absmax, _MAGNITUDE_BINS + 1)
    counts: Floats = np.diff(np.interp(ends, edges, below) - np.interp(-ends, edges, below))
    return counts


def _density(counts: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the running median of the counts, and which bins keep their own count because their median is zero."""
    padded = np.pad(counts, _AROUND, mode="reflect")
    median: Floats = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1), axis=1)
    return np.where(median > 0, median, counts), median <= 0


def _divergence(reference: Floats, candidate: Floats) -> float:
    mass, other = reference.sum(), candidate.sum()
    filled = reference > 0
    if mass == 0 or other == 0 or np.any(candidate[filled] == 0):
        return float("inf")
    share = reference[filled] / mass
    return float(np.sum(share * np.log(share / (candidate[filled] / other))))
