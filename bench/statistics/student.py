"""Student's t distribution: how much wider an interval is that rests on few values."""

from __future__ import annotations

NORMAL = 1.960
"""97.5 % quantile of the normal distribution, which Student's tends to."""
TABLE = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom."""


def student_t(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution; beyond the table an approximation, 0.03 too small at most.

    Args:
        degrees: of freedom, 1 or more.
    """
    return TABLE[degrees - 1] if degrees <= len(TABLE) else NORMAL + 2.42 / degrees
