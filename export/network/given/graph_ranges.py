"""The ranges of a given graph's Q/DQ pairs, and what each of them is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mtl_deploy.calibration.graph.typed import with_outputs
from mtl_deploy.calibration.observe.trained import TrainedRange

from .graph import GivenGraph, run, session

_EVEN = 0.01  # of the wider side: S8 has one step more below zero than above


@dataclass(frozen=True)
class GraphRanges:
    """Ranges of a graph's tensors.

    Attributes:
        graph: without its pairs.
        ranges: lowest and highest value by tensor.
    """

    graph: GivenGraph
    ranges: Mapping[str, tuple[float, float]]

    def see(self, images: torch.Tensor) -> tuple[TrainedRange, ...]:
        """Run the graph and return the ranges with the values that they are for.

        Args:
            images: ``(N, C, H, W) float32``, as many as the graph takes at once.

        Raises:
            KeyError: a tensor is not in the graph, or is no float.
            RunError: ONNX Runtime fails.
        """
        names = list(self.ranges)
        inner = session(with_outputs(self.graph.model, names).SerializeToString(), None, self.graph.where)
        found = run(inner, self.graph.entry.name, self.graph.arranged(images.numpy()), names)
        return tuple(
            TrainedRange(name, np.asarray(values, np.float32), low, high, abs(low + high) <= _EVEN * max(-low, high))
            for (name, (low, high)), values in zip(self.ranges.items(), found, strict=True)
        )
