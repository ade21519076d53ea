"""Layers that become FP16 again: at the end of a search, and once more with weights whose rounding was chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from .trail import Evaluate, Fp16Fit, Trail, fits

_TRIES = 6  # of single layers, after those that became FP16 again at once
_SWAPS = 24
_MORE_TRIES = 6  # of layers that missed by little
_NEAR = 1.25  # of what is allowed
_LEAST_ADDED = 1e-3  # of the square of what is allowed: less is noise


def regain(
    found: Fp16Fit,
    layers: Sequence[str],
    cost: Mapping[str, float],
    total: float,
    evaluate: Evaluate,
    sensitivity: Evaluate,
    progress: Callable[[str], None] = lambda _: None,
    joins: Collection[str] = (),
    enough: float = 1.0,
) -> Fp16Fit:
    """Let layers become FP16 again where rounding costs less than it did when they were found.

    As many as fit at once, from the end of the graph: rounding adds up along a network, so the last ones add least, and between
    those that are left nothing is rounded; then single ones. If that is too few, what each adds is measured, and those are tried
    that have the most work for that, or simply the most work, together and singly, and at last large ones for small ones: errors
    partly cancel, which no order foresees.

    Args:
        found: a list with which every task fits.
        layers: that FP16 would compute, in the graph's order.
        cost: by layer: its multiply-adds.
        total: the graph's multiply-adds.
        evaluate: from layers kept to excess by task.
        sensitivity: likewise, on fewer images.
        progress: called with what is being tried.
        joins: operations without multiply-adds that join branches.
        enough: of the multiply-adds in FP16: with as many, no more is tried.

    Returns:
        a list with which every task fits, some of what was found; what was found itself if that does not fit now.
    """
    trail = Trail(layers, cost, total, found.before, evaluate, frozenset(joins))
    trail.evaluations = found.evaluations
    whole = [name for name in layers if name in found.keep]
    progress("what stayed in FP32")
    before = trail.excess(1, [whole])
    if not fits(before):
        return found
    order = whole[::-1]
    kept, excess, tried = _several(trail, whole, before, order, progress)
    singly = order[tried:][:_TRIES]
    if trail.share(kept) < enough:
        added = _added(trail, whole, before, sensitivity, progress)
        singly = sorted(added, key=lambda name: added[name] / cost[name])
        for order in (singly, sorted(added, key=lambda name: -cost[name])):
            other = _several(trail, whole, before, order, progress)
            if trail.share(other[0]) > trail.share(kept):
                kept, excess, _ = other
        singly += singly  # what one adds depends on the others
    for number, name in enumerate(singly, start=1):
        if name in kept and (number <= _TRIES or trail.share(kept) < enough):
            progress(f"one more layer in FP16 again, try {number}")
            kept, excess = trail.better(kept, excess, [other for other in kept if other != name])
    if trail.share(kept) < enough:
        kept, excess = _swapped(trail, whole, singly, kept, excess, cost, enough, progress)
    if trail.joins:
        progress("what joins branches in FP16 again")
        excess = trail.without_joins(kept, excess)
    return trail.fit(1, [kept], excess)


def _swapped(
    trail: Trail,
    whole: Sequence[str],
    order: Sequence[str],
    kept: list[str],
    excess: Mapping[str, float],
    cost: Mapping[str, float],
    enough: float,
    progress: Callable[[str], None],
) -> tuple[list[str], Mapping[str, float]]:
    """Try layers, the first of an order first, in FP16 again with a smaller one in FP32 instead, until enough is FP16."""
    pairs = ((large, small) for large in dict.fromkeys(order) if large in kept for small in whole)
    apart = [pair for pair in pairs if pair[1] not in kept and cost[pair[1]] < cost[pair[0]]]
    for number, (large, small) in enumerate(apart[:_SWAPS], start=1):
        if trail.share(kept) >= enough:
            break
        if large in kept and small not in kept:
            progress(f"a large layer in FP16 for a small one, try {number}")
            other = [name for name in whole if (name in kept and name != large) or name == small]
            kept, excess = trail.better(kept, excess, other)
    return kept, excess


def _several(
    trail: Trail, kept: list[str], excess: Mapping[str, float], order: Sequence[str], progress: Callable[[str], None]
) -> tuple[list[str], Mapping[str, float], int]:
    """Find by bisection how many layers at the head of an order can be FP16 again at once.

    Returns:
        what is kept then, its excess, and how many of the order need not be tried alone.
    """
    passed, failed = 0, len(order) + 1
    while failed - passed > 1:
        length = (passed + failed) // 2
        progress(f"{length} layers in FP16 again")
        fewer = [name for name in kept if name not in order[:length]]
        if fits(now := trail.excess(1, [fewer])):
            passed, excess = length, now
        else:
            failed = length
    return [name for name in kept if name not in order[:passed]], excess, failed


def given_back(
    trail: Trail,
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
    added = _added(trail, kept, excess, sensitivity, progress)
    missed: dict[str, float] = {}
    order = sorted(added, key=lambda name: added[name] / cost[name])
    for last in (False, True):
        for number, name in enumerate(order, start=1):
            progress(f"layer {number} of {len(order)} in FP16 again{', once more' if last else ''}")
            fewer = [other for other in kept if other != name]
            found = trail.excess(1, [fewer])
            if fits(found):
                kept, excess = fewer, found
            else:
                missed[name] = max(found.values())
        near = [name for name in kept if missed.get(name, math.inf) <= _NEAR]
        order = sorted(near, key=missed.__getitem__)[:_MORE_TRIES]
    return kept, excess


def _added(
    trail: Trail,
    kept: Sequence[str],
    excess: Mapping[str, float],
    sensitivity: Evaluate,
    progress: Callable[[str], None],
) -> dict[str, float]:
    """Measure what each layer alone would add to the squared error in FP16; leave out those with which a task is clearly over."""
    base = sensitivity(trail.joins.union(kept))
    added: dict[str, float] = {}
    for number, name in enumerate(kept, start=1):
        progress(f"layer {number} of {len(kept)} in FP16 again, alone")
        found = sensitivity(trail.joins.union(kept) - {name})
        more = {task: found[task] ** 2 - base[task] ** 2 for task in found}
        if all(excess[task] ** 2 + more[task] <= _NEAR**2 for task in more):  # NaN is not
            added[name] = max(*more.values(), _LEAST_ADDED)
    trail.evaluations += 1 + len(kept)
    return added
