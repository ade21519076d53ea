"""How far a mean may be from the truth: of independent values, and of a series whose neighbours are alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .student import student_t

_LEAST_DEGREES = 2  # of a series, where it has three values or more


@dataclass(frozen=True)
class Uncertainty:
    """The squared standard error of an estimate, and how well that is known itself.

    Attributes:
        variance: of the estimate.
        degrees: of freedom of the variance's own estimate; 0: nothing is known.
    """

    variance: float
    degrees: float

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval; 0 where nothing is known."""
        return student_t(self.degrees) * math.sqrt(self.variance) if self.degrees else 0.0

    def __add__(self, other: Uncertainty) -> Uncertainty:
        """Return the uncertainty of a sum or a difference of independent estimates.

        The degrees of freedom are Welch's (The Generalization of 'Student's' Problem when Several Different Population Variances
        are Involved, Biometrika 34, 1947).
        """
        known = [one for one in (self, other) if one.degrees and one.variance > 0]
        if not known:
            return Uncertainty(0.0, min(self.degrees, other.degrees))
        variance = sum(one.variance for one in known)
        return Uncertainty(variance, variance**2 / sum(one.variance**2 / one.degrees for one in known))


def of_independent(values: npt.NDArray[np.float64]) -> Uncertainty:
    """Return the uncertainty of the mean of independent values, ``(n,)``."""
    n = len(values)
    return Uncertainty(float(values.var(ddof=1)) / n, n - 1) if n > 1 else Uncertainty(0.0, 0)


def of_series(values: npt.NDArray[np.float64]) -> Uncertainty:
    """Return the uncertainty of the mean of a series in order of time, ``(n,)``, whose neighbours may be alike.

    The variance is the mean square of the series' first few cosine coefficients: slow changes weigh in it as they do in the mean's
    error, and the fewer coefficients, the longer the memory may be. Their number is 0.4 n^(2/3), of three values or more at least
    2, and so are the degrees of freedom (Lazarus, Lewis, Stock, Watson: HAR Inference: Recommendations for Practice, Journal of
    Business & Economic Statistics 36(4), 2018: the EWC estimator). It holds for any memory that is short against the series.
    """
    n = len(values)
    if n < 2:
        return Uncertainty(0.0, 0)
    degrees = min(max(round(0.4 * n ** (2 / 3)), _LEAST_DEGREES), n - 1)
    angles = math.pi * np.outer(np.arange(1, degrees + 1), (np.arange(n) + 0.5) / n)
    coefficients = math.sqrt(2 / n) * (np.cos(angles) @ (values - values.mean()))
    return Uncertainty(float(np.mean(coefficients**2)) / n, degrees)
