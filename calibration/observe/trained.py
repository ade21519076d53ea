"""Ranges that training has found: placed on the tensors of a graph that hold the same values.

Which tensor of the graph a fake quantizer of the network saw is not read from names, which the exporter changes, but from what both
hold on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from mtl_deploy.calibration.graph.typed import with_outputs

from .ranges import Range
from .session import ObservingSession
from .statistics import TensorStatistics

_NEAR = 1e-3  # of the largest magnitude: far above the noise of float32, far below what two tensors differ by


@dataclass(frozen=True)
class TrainedRange:
    """What a fake quantizer of the network represents.

    Attributes:
        name: the fake quantizer's.
        values: ``(N, ...) float32``: what it saw on the images, before rounding.
        low: the smallest value that it represents.
        high: the largest.
        mirrored: whether only a magnitude was trained, ``low`` being ``-high``; an end that no value reaches may then be dropped.
    """

    name: str
    values: npt.NDArray[np.float32]
    low: float
    high: float
    mirrored: bool


@dataclass(frozen=True)
class Trained:
    """The ranges of a network that was trained for quantization.

    Attributes:
        images: ``(N, H, W, 3) uint8, RGB``.
        ranges: by fake quantizer, with the values on these images.
    """

    images: npt.NDArray[np.uint8]
    ranges: tuple[TrainedRange, ...]


def place_ranges(
    model: onnx.ModelProto,
    names: Sequence[str],
    trained: Trained,
    batch: npt.NDArray[np.generic],
    *,
    threads: int | None = None,
) -> dict[str, TrainedRange]:
    """Find the tensors that the fake quantizers saw.

    Args:
        model: the FP32 graph.
        names: tensors of it.
        trained: the ranges.
        batch: for the graph's input: the images of ``trained``.
        threads: of ONNX Runtime; None: one per core.

    Returns:
        by name of a tensor, the range of the fake quantizer that saw its values. A tensor that none saw is not in it.
    """
    with closing(ObservingSession(with_outputs(model, names), list(names), threads=threads)) as session:
        found = session.run({model.graph.input[0].name: batch}, list(names))
    placed = {}
    for name in names:
        values = np.asarray(found[name], np.float32)
        near = [(_distance(values, one.values), place) for place, one in enumerate(trained.ranges)]
        distance, place = min(near, default=(np.inf, 0))
        if distance <= _NEAR:
            placed[name] = trained.ranges[place]
    return placed


def _distance(values: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> float:
    """Return the largest difference, relative to the largest magnitude; infinity for other shapes and for tensors of one value."""
    if values.shape != others.shape or not np.ptp(others) or not np.isfinite(values).all():
        return np.inf
    return float(np.abs(values - others).max() / np.abs(others).max())


def as_range(trained: TrainedRange, seen: TensorStatistics) -> Range:
    """Return a fake quantizer's range for a tensor; zero is in it.

    Args:
        trained: the fake quantizer's.
        seen: the tensor's values on calibration images: a trained magnitude says nothing of a side that they never reach.
    """
    low = max(trained.low, min(seen.minimum, 0.0)) if trained.mirrored else trained.low
    high = min(trained.high, max(seen.maximum, 0.0)) if trained.mirrored and seen.maximum <= 0 else trained.high
    return Range(min(low, 0.0), max(high, 0.0))


def replaced(
    ranges: Mapping[str, Mapping[str, Mapping[str, Range]]], kept: Mapping[str, Range]
) -> dict[str, dict[str, dict[str, Range]]]:
    """Return ranges by style, method and tensor, with some tensors' ranges replaced in all of them."""
    return {
        style: {
            method: {name: kept.get(name, one) for name, one in tensors.items()} for method, tensors in methods.items()
        }
        for style, methods in ranges.items()
    }
