"""The highest rate whose p99 keeps a deadline: found by its estimates, then settled by repeated runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .rate import Rate

REPEATS = 8  # runs at a rate before it counts as one that meets the deadline
CONFIRMED = 12  # runs of the answer: the luckiest of several rates must not be it
_LOOK = 3  # runs after which a rate may clearly miss it already
NEAR = 1.15  # rates whose estimates meet and miss the deadline, and which are this close, end the first part
STEP = 1.06  # from rate to rate in the second
_STEPS = 12  # of each part at most
_BEYOND = 4  # steps up from the answer to a rate that surely misses the deadline
HOPELESS = 0.01  # of a closed loop's calls per second: where even that misses, it is not the queue


@dataclass(frozen=True)
class Highest:
    """What a search found.

    Attributes:
        rate_per_s: the highest rate whose p99 surely keeps the deadline: its interval's upper end does. None: none was found.
        beyond_per_s: the lowest rate above it whose p99 surely misses it; None: none was found.
    """

    rate_per_s: float | None
    beyond_per_s: float | None


class Search:
    """One contestant's search.

    Args:
        rates: what was measured so far, by the rate; it grows.
        offer: measures a rate once more, and returns what all runs at it say together.
        capacity: calls per second in a closed loop, which no rate can exceed for long.
        deadline_ms: for the p99.
    """

    def __init__(
        self, rates: Mapping[float, Rate], offer: Callable[[float], Rate], capacity: float, deadline_ms: float
    ) -> None:
        self._rates, self._offer = rates, offer
        self._capacity, self._deadline_ms = capacity, deadline_ms

    def run(self) -> Highest:
        """Search, and return what was found.

        The first part halves the interval between rates that meet the deadline by their estimates and those that miss it: such an
        estimate may be a quarter off. From there the second part goes up or down in small steps to the highest rate that surely
        meets it in several runs, and confirms that one with some more; then it looks above it for one that surely does not.
        """
        start = self._near()
        if start is None:
            return self.found()
        best = self._best_from(start)
        for _ in range(_STEPS):
            if best is None or self._met(best, CONFIRMED):
                break
            best = self._best_from(best / STEP, up=False)
        above = max(start, best or 0.0)
        for _ in range(_BEYOND):  # the other end of the interval need not be as exact
            above *= NEAR
            if above >= min(self.found().beyond_per_s or math.inf, self._capacity):
                break
            self._met(above, _LOOK)
        for rate in self._hasty():
            self._met(rate, CONFIRMED)
        return self.found()

    def _best_from(self, start: float, *, up: bool = True) -> float | None:
        """Go up from a rate while rates surely meet the deadline, or down until one does; return that one, or None."""
        rate = start
        if not self._met(rate):
            for _ in range(_STEPS):
                rate /= STEP
                if self._met(rate):
                    return rate
            return None
        while up and rate * STEP < self._capacity and self._met(rate * STEP):
            rate *= STEP
        return rate

    def _hasty(self) -> list[float]:
        """Return the rates that say after too few runs that they meet the deadline, or miss it below one that meets it."""
        met = [rate for rate, one in self._rates.items() if one.meets_deadline]
        settled = [rate for rate in met if len(self._rates[rate].runs) >= CONFIRMED]
        few = [rate for rate in met if rate > max(settled, default=0.0)]
        highest = max(met, default=0.0)
        return few + [rate for rate, one in self._rates.items() if one.meets_deadline is False and rate < highest]

    def found(self) -> Highest:
        """Return the highest rate that surely meets the deadline below all that surely do not, and the lowest of those."""
        missed = [rate for rate, one in self._rates.items() if one.meets_deadline is False]
        lowest = min(missed, default=None)
        met = [rate for rate, one in self._rates.items() if one.meets_deadline and (lowest is None or rate < lowest)]
        return Highest(max(met, default=None), lowest)

    def _met(self, rate: float, runs: int = REPEATS) -> bool:
        """Offer a rate until it had its runs, or clearly misses the deadline; return whether it surely meets it."""
        while True:
            known = self._rates.get(rate)
            if known is not None:
                missed = known.meets_deadline is False and (len(known.runs) >= _LOOK or not known.sustained)
                if missed or len(known.runs) >= runs:
                    return bool(known.meets_deadline)
            self._offer(rate)

    def _near(self) -> float | None:
        """Return a rate near the answer by the estimates; None: there is none, even without a queue."""
        for _ in range(_STEPS):
            missed = min((rate for rate, one in self._rates.items() if not self._seems_met(one)), default=None)
            met = [rate for rate in self._rates if missed is None or rate < missed]
            if not met and missed is not None:
                if missed < HOPELESS * self._capacity:
                    return None
                following = missed / 2
            elif missed is None:
                if max(met) >= 0.97 * self._capacity:
                    return max(met)
                following = math.sqrt(max(met) * self._capacity)
            elif missed <= NEAR * max(met):
                return max(met)
            else:
                following = math.sqrt(max(met) * missed)
            self._offer(following)
        return max(met) if met else None

    def _seems_met(self, rate: Rate) -> bool:
        return rate.sustained and rate.p99_ms <= self._deadline_ms
