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

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from .regain import given_back
from .trail import LEAST_SHARE, Evaluate, Fp16Fit, Trail, fits

__all__ = ["LEAST_SHARE", "Fp16Fit", "fit"]

_GROUP = 0.04  # of the multiply-adds
_TRIES = 8
_QUIET = 0.02  # of the square of what is allowed


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
    trail = Trail(layers, cost, total, before, evaluate, frozenset(joins))
    if joins:
        progress("what joins branches in FP32")
        before = trail.excess(0, [])
        if fits(before):
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
        if fits(found):
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
    kept, excess = given_back(trail, kept, excess, cost, sensitivity, progress)
    if trail.joins:
        progress("what joins branches in FP16 again")
        excess = trail.without_joins(kept, excess)
    return replace(trail.fit(1, [kept], excess), loud=_loud(groups, errors))


def _loud(groups: Sequence[Sequence[str]], errors: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """Leave out the groups that make the least error, as long as all that they make together is negligible for every task."""
    quiet: set[int] = set()
    made = dict.fromkeys(errors[0], 0.0)
    for number in sorted(range(len(groups)), key=lambda number: max(map(_finite, errors[number].values()))):
        made = {name: value + _finite(errors[number][name]) for name, value in made.items()}
        if max(made.values()) > _QUIET:
            break
        quiet.add(number)
    return tuple(name for number, group in enumerate(groups) if number not in quiet for name in group)


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
