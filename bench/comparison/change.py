"""One contestant at one batch size in two results."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from mtl_deploy.bench.statistics.derived import log_uncertainty, ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, location
from mtl_deploy.bench.statistics.power import detectable
from mtl_deploy.bench.statistics.uncertainty import Uncertainty


@dataclass(frozen=True)
class Change:
    """One contestant at one batch size in two results.

    Attributes:
        batch: images per call.
        contestant: its name.
        first_ms: mean over processes and rounds of the round's median, in the first result.
        second_ms: in the second.
        ratio: second over first.
        noises: of the logarithms of the two times.
        starts: that the two results have.
    """

    batch: int
    contestant: str
    first_ms: float
    second_ms: float
    ratio: Interval
    noises: tuple[Uncertainty, Uncertainty]
    starts: tuple[int, int]

    @property
    def real(self) -> bool:
        """Whether the interval excludes 1."""
        return not self.ratio.contains(1)

    @property
    def verdict(self) -> str:
        """For people: ``no difference``, ``3.1 % more time`` or ``12.0 % less time``."""
        if not self.real:
            return "no difference"
        change = 100 * (self.ratio.value - 1)
        return f"{abs(change):.1f} % {'more' if change > 0 else 'less'} time"

    @property
    def detectable(self) -> float | None:
        """Percent more time that these two results would have called real in 80 % of cases; None: nothing is known of the noise."""
        first, second = self.noises
        smallest = detectable(first + second)
        return None if smallest is None or smallest > math.log(1e3) else 100 * math.expm1(smallest)

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {
            "batch": self.batch,
            "contestant": self.contestant,
            "first_ms": self.first_ms,
            "second_ms": self.second_ms,
            "ratio": asdict(self.ratio),
            "confidence": 0.95,
            "difference": self.real,
            "verdict": self.verdict,
            "detectable_percent": self.detectable,
        }


def change_of(batch: int, contestant: str, first: Nested, second: Nested) -> Change:
    """Compare two runs' samples; nothing ties them together, so that each one's starts vary on their own.

    Args:
        batch: images per call.
        contestant: its name.
        first: samples by process, round and call.
        second: of the other run.
    """
    return Change(
        batch,
        contestant,
        location(first),
        location(second),
        ratio(second, first, paired=False),
        (log_uncertainty(first), log_uncertainty(second)),
        (len(first), len(second)),
    )
