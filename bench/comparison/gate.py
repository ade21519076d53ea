"""Whether a change is more than a limit allows: yes, no, or not decided, and then what would decide it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mtl_deploy.bench.statistics.power import MOST_STARTS, starts_to_resolve

from .change import Change

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What a limit says of one contestant at one batch size.

    Attributes:
        change: between the two results.
        limit: percent by which the second may be slower.
        outcome: ``fail`` where the whole interval lies above the limit, ``pass`` where it lies at or below it, ``inconclusive``
            where the limit is in it.
        starts: that each of the two runs would need to decide it if the ratio is what it was found to be; None where it is decided,
            where a single start tells nothing of others, or where it would take too many.
        seconds: of measuring that so many starts take, of each of the two runs; None likewise.
    """

    change: Change
    limit: float
    outcome: Outcome
    starts: int | None = None
    seconds: tuple[float, float] | None = None

    def sentence(self) -> str:
        """Return what was found, for people: one line."""
        ratio = self.change.ratio
        what = f"{self.change.contestant} at batch {self.change.batch}"
        interval = f"95 % interval of the ratio {ratio.low:.3f} to {ratio.high:.3f}"
        if self.outcome == "fail":
            return f"{what} takes {self.change.verdict} ({interval}); --fail-above allows {self.limit:g} %"
        if self.outcome == "pass":
            return f"{what} is not slower by more than {self.limit:g} % ({interval})"
        is_slower = ratio.low > 1
        both = "is slower, by more or less than" if is_slower else "may be no slower, or slower by more than"
        return f"{what} {both} {self.limit:g} % ({interval}): not decided; {self._needed()}"

    def _needed(self) -> str:
        if min(self.change.starts) < 2:
            return "a single start tells nothing of what a restart changes: measure both with --processes 5"
        if self.starts is None:
            return (
                f"the change is so near to the limit that even {MOST_STARTS} starts would not decide it: measure both for longer, "
                "on a quieter machine, or choose another limit"
            )
        if self.seconds is None:
            return f"about {self.starts} starts of each would decide it: --processes {self.starts}"
        first, second = self.seconds
        seconds = f"{first:.0f} s" if round(first) == round(second) else f"{first:.0f} s and {second:.0f} s"
        return (
            f"about {self.starts} starts of each, {seconds} of measuring, would decide it: "
            f"--processes {self.starts} --duration {max(first, second):.0f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {
            "batch": self.change.batch,
            "contestant": self.change.contestant,
            "limit_percent": self.limit,
            "outcome": self.outcome,
            "starts_needed": self.starts,
            "seconds_needed": None if self.seconds is None else list(self.seconds),
        }


def judge(change: Change, limit: float, durations: tuple[float | None, float | None]) -> Verdict:
    """Test a change against a limit.

    Args:
        change: between two results.
        limit: percent, 0 or more.
        durations: seconds that each of them was measured for at a batch size; None: not known.
    """
    most = 1 + limit / 100
    if change.ratio.low > most:
        return Verdict(change, limit, "fail")
    if change.ratio.high <= most:
        return Verdict(change, limit, "pass")
    if min(change.starts) < 2:
        return Verdict(change, limit, "inconclusive")
    distance = abs(math.log(change.ratio.value / most))
    starts = starts_to_resolve(change.noises, change.starts, distance)
    first, second = durations
    if starts is None or first is None or second is None:
        return Verdict(change, limit, "inconclusive", starts)
    seconds = (first * starts / change.starts[0], second * starts / change.starts[1])
    return Verdict(change, limit, "inconclusive", starts, seconds)


def duration_of(document: Mapping[str, Any]) -> float | None:
    """Return for how many seconds a result was measured at a batch size; None where it does not say."""
    value = document.get("settings", {}).get("duration_s")
    return float(value) if isinstance(value, (int, float)) else None
