"""The errors of two quantized networks against the FP32 one, task by task, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.statistics.nested import Interval

Answers = Mapping[str, npt.NDArray[Any]]
RESAMPLES = 2000


class Errors:
    """Grows by one image at a time; keeps one figure per image, task and network.

    Of class indices the figure is the share of pixels that change class, otherwise the mean squared difference.
    """

    def __init__(self) -> None:
        self._figures: dict[str, list[tuple[float, float]]] = {}
        self._moments: dict[str, list[tuple[float, float]]] = {}
        self._classes: set[str] = set()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks so far."""
        return tuple(self._figures)

    def add(self, expected: Answers, ours: Answers, theirs: Answers) -> None:
        """Add the answers to one image: those of the FP32 graph, of our INT8 and of the other's."""
        for task, truth in expected.items():
            if np.issubdtype(truth.dtype, np.integer):
                self._classes.add(task)
                pair = tuple(float(np.mean(one[task] != truth)) for one in (ours, theirs))
            else:
                exact = truth.astype(np.float64)
                pair = tuple(float(np.mean(np.square(one[task] - exact))) for one in (ours, theirs))
                moments = float(np.mean(exact)), float(np.mean(np.square(exact)))
                self._moments.setdefault(task, []).append(moments)
            self._figures.setdefault(task, []).append((pair[0], pair[1]))

    def ratio(self, task: str) -> Interval:
        """Return our error over the other's, with its 95 % interval: a bootstrap of the images, which both were run on."""
        figures = np.array(self._figures[task])
        chosen = np.random.default_rng(0).integers(0, len(figures), (RESAMPLES, len(figures)))
        drawn = self._ratio(task, figures[chosen].mean(axis=1))
        low, high = np.quantile(drawn, [0.025, 0.975])
        value = float(self._ratio(task, figures.mean(axis=0)))
        return Interval(value, float(low), float(high))

    def rows(self) -> list[list[str]]:
        """Return the rows of a table: task, what the error is, ours, the other's."""
        rows = []
        for task, figures in self._figures.items():
            both = np.mean(figures, axis=0)
            if task in self._classes:
                rows.append([task, "pixels of another class", *(f"{100 * share:.2f} %" for share in both)])
            else:
                mean, square = np.mean(self._moments[task], axis=0)
                spread = np.sqrt(max(square - mean**2, 1e-30))
                rows.append([task, "share of the spread", *(f"{100 * np.sqrt(one) / spread:.2f} %" for one in both)])
        return rows

    def _ratio(self, task: str, figures: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        ours, theirs = np.maximum(np.moveaxis(figures, -1, 0), 1e-30)
        found: npt.NDArray[np.float64] = ours / theirs
        return found if task in self._classes else np.sqrt(found)
