"""Student's t distribution: how much wider an interval is that rests on few values."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(80)
_MANY = 1000.0  # degrees from which the distribution is taken at so many: the quantiles differ in the fourth digit


def student_t(degrees: float, share: float = 0.975) -> float:
    """Return a quantile of Student's t distribution, to six digits.

    With t = sqrt(n) tan(x), the distribution's density is proportional to cos(x)^(n - 1) (Abramowitz, Stegun: Handbook of
    Mathematical Functions, section 26.7); that is integrated by Gauss and Legendre's rule.

    Args:
        degrees: of freedom, 1 or more; not always whole.
        share: of the distribution below the quantile, between 0 and 1; 0.975 bounds 95 % on two sides.
    """
    return _quantile(min(degrees, _MANY), share) if share >= 0.5 else -_quantile(min(degrees, _MANY), 1 - share)


@lru_cache(maxsize=256)
def _quantile(degrees: float, share: float) -> float:
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        below = 0.5 + scale * middle / 2 * float(_WEIGHTS @ np.cos(middle / 2 * (1 + _NODES)) ** (degrees - 1))
        low, high = (middle, high) if below < share else (low, middle)
    return math.sqrt(degrees) * math.tan(low)
