"""FP16 that keeps every task: where rounding costs too much, the layers that cost most stay in FP32.

Method: as for INT8 budgets (:mod:`mtl_deploy.calibration.search.layers`), by sensitivity. The layers that FP16 would compute
are cut into groups that follow one another in the graph, each with a few percent of the multiply-adds. A group's sensitivity is
the squared error of each task with that group alone in FP16 (Wu et al., "Integer Quantization for Deep Learning Inference",
https://arxiv.org/abs/2004.09602, measure INT8 so): errors of rounding are independent of one another, so their squares add up.
Groups are kept in FP32 in the order of what they take off the tasks that are over, for their multiply-adds. The shortest such
list with which every task fits is found by trying, so that nothing rests on the sum. Then the layers on it are tried in FP16
again, those first that have the most work for the error that they add, and stay so where every task still fits.

Before all that, the operations that join branches (the sums of residual blocks, the products of gates) become FP32: they cost no
multiply-adds, and rounding adds up along them from block to block. At the end they are tried in FP16 again too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_SHARE = 0.5
"""Of the multiply-adds: with less than this in FP16, the graph would save so little that it is left out."""

_GROUP = 0.04  # of the multiply-adds
_TRIES = 8
_MORE_TRIES = 6  # of layers that missed by little
_NEAR = 1.25  # of what is allowed
_LEAST_ADDED = 1e-3  # of the square of what is allowed: less is noise

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
    """

    keep: frozenset[str]
    joins: frozenset[str]
    fits: bool
    excess: Mapping[str, float]
    before: Mapping[str, float]
    share: float
    evaluations: int

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "keep": sorted(self.keep),
            "joins": sorted(self.joins),
            "excess": dict(self.excess),
            "before": dict(self.before),
            "evaluations": self.evaluations,
        }


def fit(
    layers: Sequence[str],
    cost: Mapping[str, float],
    total: float,
    before: Mapping[str, float],
    evaluate: Evaluate,
    sensitivity: Evaluate,
    progress: Callable[[str], None] = lambda _: None,
    joins: Collection[str] = (),
) -> Fp16Fit:
    """Find few layers that, kept in FP32, bring every task within what is allowed.

    Args:
        layers: that FP16 would compute, in the graph's order.
        cost: by layer: its multiply-adds.
        total: the graph's multiply-adds.
        before: each task's excess with none of them kept; a task is over.
        evaluate: from layers kept to excess by task.
        sensitivity: likewise, on fewer images.
        progress: called with what is being tried.
        joins: operations without multiply-adds that join branches.
    """
    trail = _Trail(layers, cost, total, before, evaluate, frozenset(joins))
    if joins:
        progress("what joins branches in FP32")
        before = trail.excess(0, [])
        if _fits(before):
            return trail.fit(0, [], before)
    alone = trail.joins.union(layers)
    groups = _groups(layers, cost, total)
    errors = []
    for number, group in enumerate(groups, start=1):
        progress(f"group {number} of {len(groups)} alone")
        errors.append({name: value**2 for name, value in sensitivity(alone - frozenset(group)).items()})
    trail.evaluations += len(groups)
    order = _order(groups, errors, before, cost, total)
    most = trail.most(order)
    if most == 0:
        return trail.nothing()
    length = min(max(1, _predicted(order, errors, groups, before)), most)
    failed, passed, excess = 0, 0, before
    for _ in range(_TRIES):
        progress(f"{length} of {len(groups)} groups in FP32")
        found = trail.excess(length, order)
        if _fits(found):
            passed, excess = length, found
        else:
            failed = max(failed, length)
        if passed and passed - failed <= 1:
            break
        if not passed and failed >= most:
            return trail.nothing()
        length = (failed + passed) // 2 if passed else min(most, max(failed + 1, 2 * failed))
    if not passed:
        return trail.nothing()
    kept = [name for group in order[:passed] for name in group]
    kept, excess = _given_back(trail, kept, excess, cost, sensitivity, progress)
    if trail.joins:
        progress("what joins branches in FP16 again")
        excess = trail.without_joins(kept, excess)
    return trail.fit(1, [kept], excess)


def _given_back(
    trail: _Trail,
    kept: list[str],
    excess: Mapping[str, float],
    cost: Mapping[str, float],
    sensitivity: Evaluate,
    progress: Callable[[str], None],
) -> tuple[list[str], Mapping[str, float]]:
    """Try each layer in FP16 again, and leave it so if every task still fits; return what is kept in the end, and its excess.

    What each adds to the squared error is measured alone first, on few images: those with which a task would clearly be over are
    not tried. The first to be tried has the most work for what it adds. Those that missed narrowly are tried once more at the end,
    since what one layer adds depends on the others.
    """
    base = sensitivity(trail.joins.union(kept))
    added: dict[str, float] = {}
    for number, name in enumerate(kept, start=1):
        progress(f"layer {number} of {len(kept)} in FP16 again, alone")
        found = sensitivity(trail.joins.union(kept) - {name})
        more = {task: found[task] ** 2 - base[task] ** 2 for task in found}
        if all(excess[task] ** 2 + more[task] <= _NEAR**2 for task in more):  # NaN is not
            added[name] = max(*more.values(), _LEAST_ADDED)
    trail.evaluations += 1 + len(kept)
    missed: dict[str, float] = {}
    order = sorted(added, key=lambda name: added[name] / cost[name])
    for last in (False, True):
        for number, name in enumerate(order, start=1):
            progress(f"layer {number} of {len(order)} in FP16 again{', once more' if last else ''}")
            fewer = [other for other in kept if other != name]
            found = trail.excess(1, [fewer])
            if _fits(found):
                kept, excess = fewer, found
            else:
                missed[name] = max(found.values())
        near = [name for name in kept if missed.get(name, math.inf) <= _NEAR]
        order = sorted(near, key=missed.__getitem__)[:_MORE_TRIES]
    return kept, excess


class _Trail:
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

    def excess(self, length: int, order: Sequence[Sequence[str]]) -> Mapping[str, float]:
        self.evaluations += 1
        return self._evaluate(self.joins | _kept(order, length))

    def without_joins(self, kept: Sequence[str], excess: Mapping[str, float]) -> Mapping[str, float]:
        """Try them in FP16 again beside the layers that are kept; return the excess of what is kept in the end."""
        joins, self.joins = self.joins, frozenset()
        found = self.excess(1, [kept])
        if _fits(found):
            return found
        self.joins = joins
        return excess

    def share(self, kept: Collection[str]) -> float:
        """Return what of the multiply-adds is in FP16."""
        return sum(self._cost[name] for name in self._layers if name not in kept) / max(self._total, 1)

    def most(self, order: Sequence[Sequence[str]]) -> int:
        """Return the length of the longest prefix that leaves enough in FP16."""
        lengths = range(1, len(order) + 1)
        return max((n for n in lengths if self.share(_kept(order, n)) >= LEAST_SHARE), default=0)

    def nothing(self) -> Fp16Fit:
        """Return that no list was found with which every task fits."""
        return Fp16Fit(frozenset(), frozenset(), False, self._before, self._before, self.share(()), self.evaluations)

    def fit(self, length: int, order: Sequence[Sequence[str]], excess: Mapping[str, float]) -> Fp16Fit:
        keep = _kept(order, length)
        return Fp16Fit(keep, self.joins, _fits(excess), excess, self._before, self.share(keep), self.evaluations)


def _kept(order: Sequence[Sequence[str]], length: int) -> frozenset[str]:
    return frozenset(name for group in order[:length] for name in group)


def _fits(excess: Mapping[str, float]) -> bool:
    return all(value <= 1 for value in excess.values())  # NaN is not


def _groups(layers: Sequence[str], cost: Mapping[str, float], total: float) -> list[list[str]]:
    groups: list[list[str]] = []
    filled = total
    for name in layers:
        if filled + cost[name] > _GROUP * total:
            groups.append([])
            filled = 0.0
        groups[-1].append(name)
        filled += cost[name]
    return groups


def _order(
    groups: Sequence[Sequence[str]],
    errors: Sequence[Mapping[str, float]],
    before: Mapping[str, float],
    cost: Mapping[str, float],
    total: float,
) -> list[Sequence[str]]:
    over = [name for name, value in before.items() if not value <= 1]

    def gain(number: int) -> float:
        whole = {name: sum(_finite(each[name]) for each in errors) or 1.0 for name in over}
        taken = sum(_finite(errors[number][name]) / whole[name] for name in over)
        return taken / (sum(cost[name] for name in groups[number]) / max(total, 1) + 0.005)

    return [groups[number] for number in sorted(range(len(groups)), key=gain, reverse=True)]


def _predicted(
    order: Sequence[Sequence[str]],
    errors: Sequence[Mapping[str, float]],
    groups: Sequence[Sequence[str]],
    before: Mapping[str, float],
) -> int:
    """Return how many groups should do, if squared errors add up."""
    of = {id(group): error for group, error in zip(groups, errors, strict=True)}
    left = {name: sum(_finite(error[name]) for error in errors) for name in before}
    factor = {name: _finite(before[name] ** 2) / left[name] if left[name] else 0.0 for name in before}
    for length, group in enumerate(order, start=1):
        for name in left:
            left[name] -= _finite(of[id(group)][name])
        if all(factor[name] * left[name] <= 1 for name in left):
            return length
    return len(order)


def _finite(value: float) -> float:
    return value if value < 1e12 else 1e12  # NaN and infinity too
