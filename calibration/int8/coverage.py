"""How well each tensor's range fits its values: what is clipped, unused or rounded to zero, and which heads the tensor feeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from mtl_deploy.calibration.graph.typed import prepared
from mtl_deploy.calibration.observe.histograms import Histogram
from mtl_deploy.calibration.observe.ranges import Range, expected_error

from .qdq_placement import QdqPlacement

DEAD = 1e-6
"""Share of the tensor's largest magnitude: a channel that never exceeds it is dead."""


@dataclass(frozen=True)
class Coverage:
    """How one tensor's range fits.

    Attributes:
        tensor: its name.
        clipped: share of its values beyond the range.
        unused: share of the steps below the smallest and above the largest value. S8 is symmetric, so that a tensor of one sign,
            such as a ReLU's result, can have one side of it alone: the other side does not count.
        zeroed: share of the nonzero values that become zero.
        noise_db: the expected squared error over the mean square, in decibels: -40 is good, -20 is poor; None: all values are zero.
        dead_channels: number of channels that are zero on all images; None if the tensor has no channels.
        heads: the graph's outputs that it feeds.
    """

    tensor: str
    clipped: float
    unused: float
    zeroed: float
    noise_db: float | None
    dead_channels: int | None
    heads: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self) | {"heads": list(self.heads)}


def coverage(
    model: onnx.ModelProto, histograms: Mapping[str, Histogram], ranges: Mapping[str, Range], placement: QdqPlacement
) -> tuple[Coverage, ...]:
    """Return how well the ranges of a quantized graph fit, the noisiest tensor first.

    Shares are counted in the bins of histograms, so they are exact up to the values of one bin at each end.

    Args:
        model: the FP32 graph.
        histograms: by tensor, at least ``placement.tensors``.
        ranges: by tensor, likewise.
        placement: of the graph; its style says whether the steps are S8's or U8's.
    """
    feeds = _feeds(model)
    symmetric = placement.style == "tensorrt"
    found = [_cover(name, histograms[name], ranges[name], symmetric, feeds.get(name, ())) for name in placement.tensors]
    return tuple(sorted(found, key=lambda one: -math.inf if one.noise_db is None else one.noise_db, reverse=True))


def _cover(name: str, histogram: Histogram, chosen: Range, symmetric: bool, heads: tuple[str, ...]) -> Coverage:
    counts, centers = histogram.counts, histogram.centers
    step, zero = (chosen.symmetric_scale, 0) if symmetric else chosen.asymmetric()
    lowest, highest = (-127, 127) if symmetric else (0, 255)
    filled = counts > 0
    first, last = (
        np.clip(np.rint(ends[filled] / step) + zero, lowest, highest).astype(int)
        for ends in (histogram.edges[:-1], histogram.edges[1:])
    )
    used = int(last.max() - first.min()) + 1 if filled.any() else 0
    one_sided = symmetric and (histogram.low >= 0 or histogram.high <= 0)
    steps = highest + 1 if one_sided else highest - lowest + 1
    beyond = (centers < (lowest - zero - 0.5) * step) | (centers > (highest - zero + 0.5) * step)
    small = int(counts[np.abs(centers) < step / 2].sum())
    nonzero = histogram.total - histogram.zeros
    power = float(np.sum(counts * centers**2)) / max(histogram.total, 1) if nonzero else 0.0
    error = expected_error(histogram, chosen, symmetric=symmetric)
    channels = histogram.channel_absmax
    return Coverage(
        tensor=name,
        clipped=float(counts[beyond].sum()) / max(histogram.total, 1),
        unused=1 - used / steps,
        zeroed=max(small - histogram.zeros, 0) / nonzero if nonzero else 0.0,
        noise_db=10 * math.log10(max(error / power, 1e-12)) if power > 0 else None,
        dead_channels=None if channels is None else int(np.count_nonzero(channels <= DEAD * histogram.absmax)),
        heads=heads,
    )


def _feeds(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return by tensor the outputs of the graph that depend on it, in the graph's order."""
    graph = prepared(model).graph
    order = [str(output.name) for output in graph.outputs]
    feeds: dict[str, set[str]] = {name: {name} for name in order}
    for node in reversed(graph):
        reached = {head for output in node.outputs for head in feeds.get(str(output.name), ())}
        for value in node.inputs:
            if value is not None:
                feeds.setdefault(str(value.name), set()).update(reached)
    return {name: tuple(head for head in order if head in heads) for name, heads in feeds.items()}
