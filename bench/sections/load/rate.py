"""What a contestant did at one rate, in one run or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mtl_deploy.bench.statistics.nested import QUANTILES, Interval

from .serving import Served, dependent_quantile

SATURATED = 0.98  # utilisation from which a rate is not sustained


@dataclass(frozen=True)
class Rate:
    """What a contestant did at one rate.

    Attributes:
        rate_per_s: requests per second that were offered.
        runs: what became of them, one run after the other.
        latency_ms: by quantile, from the scheduled arrival; None where the requests are too few to bound it.
        p99_ms: the estimate alone, however few the requests.
        sustained: False where requests arrive faster than they are served.
        meets_deadline: True where the p99's whole interval is within the deadline; False where it lies beyond it, or the rate is
            not sustained; None without a deadline, and where it is not decided.
    """

    rate_per_s: float
    runs: tuple[Served, ...]
    latency_ms: Mapping[str, Interval | None]
    p99_ms: float
    sustained: bool
    meets_deadline: bool | None

    @property
    def calls(self) -> int:
        """Requests whose latency counts."""
        return sum(len(run.measured_ms) for run in self.runs)

    @property
    def seconds(self) -> float:
        """From the start of each run to its last completion, together."""
        return sum(run.seconds for run in self.runs)

    @property
    def utilisation(self) -> float:
        """Share of the time with a request to serve."""
        return 1 - sum(run.waited_s for run in self.runs) / self.seconds

    @property
    def late_ms(self) -> float:
        """99th percentile of what the load generator itself was late by."""
        late = np.concatenate([run.late_ms for run in self.runs])
        return float(np.quantile(late, QUANTILES["p99"])) if len(late) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON."""
        return {
            "rate_per_s": self.rate_per_s,
            "runs": len(self.runs),
            "calls": self.calls,
            "duration_s": self.seconds,
            "latency_ms": {word: None if one is None else asdict(one) for word, one in self.latency_ms.items()},
            "utilisation": self.utilisation,
            "sustained": self.sustained,
            "meets_deadline": self.meets_deadline,
        }


def summarise(rate_per_s: float, runs: Sequence[Served], deadline_ms: float | None) -> Rate:
    """Return the figures of one rate.

    Args:
        rate_per_s: requests per second that were offered.
        runs: what became of them; one run or more.
        deadline_ms: for the p99; None where there is none.
    """
    latencies = [run.measured_ms for run in runs]
    together = np.concatenate(latencies)
    intervals = {word: dependent_quantile(latencies, share) for word, share in QUANTILES.items()}
    waited, seconds = sum(run.waited_s for run in runs), sum(run.seconds for run in runs)
    sustained = all(run.finished for run in runs) and 1 - waited / seconds < SATURATED
    meets: bool | None = None
    if deadline_ms is not None:
        p90, p99 = intervals["p90"], intervals["p99"]
        if not sustained or (p90 is not None and p90.low > deadline_ms):  # then the p99 is beyond it, too
            meets = False
        elif p99 is not None and (p99.low > deadline_ms or p99.high <= deadline_ms):
            meets = p99.high <= deadline_ms
    p99_ms = float(np.quantile(together, QUANTILES["p99"]))
    return Rate(rate_per_s, tuple(runs), intervals, p99_ms, sustained, meets)
