"""What a search for layers that stay in FP32 has found, and the evaluations that it rests on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_SHARE = 0.5
"""Of the multiply-adds: with less than this in FP16, the graph would save so little that it is left out."""

Evaluate = Callable[[frozenset[str]], Mapping[str, float]]
"""From the layers kept in FP32 to each task's error, as a multiple of what is allowed."""


@dataclass(frozen=True)
class Fp16Fit:
    """What was found.

    Attributes:
        keep: the layers to keep in FP32 beside those that must be; empty if all fits without.
        joins: likewise, the operations that join branches; none or all of those that were given.
        fits: whether every task is within what is allowed.
        excess: each task's error with these layers kept, as a multiple of what is allowed.
        before: likewise, with none kept.
        share: of the multiply-adds, in FP16.
        evaluations: graphs that were run.
        loud: the layers whose rounding makes up nearly all of the error, kept or not, as far as that was measured.
    """

    keep: frozenset[str]
    joins: frozenset[str]
    fits: bool
    excess: Mapping[str, float]
    before: Mapping[str, float]
    share: float
    evaluations: int
    loud: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "keep": sorted(self.keep),
            "joins": sorted(self.joins),
            "excess": dict(self.excess),
            "before": dict(self.before),
            "evaluations": self.evaluations,
        }


class Trail:
    """Evaluations of prefixes of an order."""

    def __init__(
        self,
        layers: Sequence[str],
        cost: Mapping[str, float],
        total: float,
        before: Mapping[str, float],
        evaluate: Evaluate,
        joins: frozenset[str],
    ) -> None:
        self._layers, self._cost, self._total, self._evaluate = layers, cost, total, evaluate
        self._before = before
        self.joins = joins
        self.evaluations = 0
        self._known: dict[frozenset[str], Mapping[str, float]] = {}

    def excess(self, length: int, order: Sequence[Sequence[str]]) -> Mapping[str, float]:
        """Return each task's excess with a prefix of an order in FP32."""
        keep = self.joins | kept_of(order, length)
        if keep not in self._known:
            self.evaluations += 1
            self._known[keep] = self._evaluate(keep)
        return self._known[keep]

    def better(
        self, kept: list[str], excess: Mapping[str, float], other: list[str]
    ) -> tuple[list[str], Mapping[str, float]]:
        """Return another list and its excess if every task fits with it, else those given."""
        found = self.excess(1, [other])
        return (other, found) if fits(found) else (kept, excess)

    def without_joins(self, kept: Sequence[str], excess: Mapping[str, float]) -> Mapping[str, float]:
        """Try them in FP16 again beside the layers that are kept; return the excess of what is kept in the end."""
        joins, self.joins = self.joins, frozenset()
        found = self.excess(1, [kept])
        if fits(found):
            return found
        self.joins = joins
        return excess

    def share(self, kept: Collection[str]) -> float:
        """Return what of the multiply-adds is in FP16."""
        return sum(self._cost[name] for name in self._layers if name not in kept) / max(self._total, 1)

    def most(self, order: Sequence[Sequence[str]]) -> int:
        """Return the length of the longest prefix that leaves enough in FP16."""
        lengths = range(1, len(order) + 1)
        return max((n for n in lengths if self.share(kept_of(order, n)) >= LEAST_SHARE), default=0)

    def nothing(self) -> Fp16Fit:
        """Return that no list was found with which every task fits."""
        return Fp16Fit(frozenset(), frozenset(), False, self._before, self._before, self.share(()), self.evaluations)

    def fit(self, length: int, order: Sequence[Sequence[str]], excess: Mapping[str, float]) -> Fp16Fit:
        """Return a prefix of an order, with its excess, as what was found."""
        keep = kept_of(order, length)
        return Fp16Fit(keep, self.joins, fits(excess), excess, self._before, self.share(keep), self.evaluations)


def kept_of(order: Sequence[Sequence[str]], length: int) -> frozenset[str]:
    """Return the layers of a prefix of an order."""
    return frozenset(name for group in order[:length] for name in group)


def fits(excess: Mapping[str, float]) -> bool:
    """Whether every task is within what is allowed."""
    return all(value <= 1 for value in excess.values())  # NaN is not
