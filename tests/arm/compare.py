"""Whether a processor answers as this one does: how far the answers lie apart, and how far INT8 is from FP32 on both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Answers = Mapping[str, npt.NDArray[Any]]
FP32 = "fp32"
MOST_APART = 1e-4  # in FP32: of the task's spread, as mtl-export allows a graph to be from PyTorch
MOST_PIXELS = 0.005  # of another class in FP32
MORE = 2.0  # times this machine's error, that a processor's INT8 may have
SLACK = 0.002  # of the spread, or of the pixels, on top of it


@dataclass(frozen=True)
class Figure:
    """One task of one graph.

    Attributes:
        precision: of the graph.
        task: the task.
        apart: root mean square of the differences from this machine's answers as a share of the task's spread; of classes, the
            share of pixels of another class.
        error: likewise, from the FP32 graph on this machine.
        error_here: this machine's own.
        classes: whether the answers are classes.
    """

    precision: str
    task: str
    apart: float
    error: float
    error_here: float
    classes: bool

    @property
    def times(self) -> float:
        """The error as a multiple of this machine's."""
        return self.error / max(self.error_here, 1e-12)

    @property
    def holds(self) -> bool:
        """Whether the processor's answers are as good: in FP32 the same, in INT8 no further from FP32 than this machine's."""
        if self.precision == FP32:
            return self.apart <= (MOST_PIXELS if self.classes else MOST_APART)
        return self.error <= MORE * self.error_here + SLACK


def figures(truth: Answers, here: Answers, there: Answers) -> list[Figure]:
    """Compare two processors' answers.

    Args:
        truth: the answers of a library's FP32 graph on this machine, by ``PRECISION/TASK``.
        here: this machine's, of the same library as the other's.
        there: the other's.

    Returns:
        Figures of the graphs that ran on both.
    """
    found = []
    for name in here:
        if name == "pixels" or name not in there:
            continue
        precision, _, task = name.partition("/")
        exact = truth[f"{FP32}/{task}"]
        classes = bool(np.issubdtype(exact.dtype, np.integer))
        error, error_here = distance(there[name], exact, exact), distance(here[name], exact, exact)
        found.append(Figure(precision, task, distance(there[name], here[name], exact), error, error_here, classes))
    return found


def distance(one: npt.NDArray[Any], other: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Return how far answers lie apart, as a share of the spread of the exact ones; of classes, the share that differs.

    NaN lies infinitely far away, and so does another shape.
    """
    if one.shape != other.shape:
        return float("inf")
    if np.issubdtype(exact.dtype, np.integer):
        return float(np.mean(one != other))
    spread = max(float(np.std(exact.astype(np.float64))), 1e-12)
    apart = float(np.sqrt(np.mean(np.square(one.astype(np.float64) - other)))) / spread
    return apart if np.isfinite(apart) else float("inf")


def pixels_apart(here: Answers, there: Answers) -> int:
    """Return the largest difference of the inputs that two processors make of the same image files, in levels of 255."""
    one, other = here["pixels"].astype(int), there["pixels"].astype(int)
    return int(np.abs(one - other).max()) if one.shape == other.shape else 255
