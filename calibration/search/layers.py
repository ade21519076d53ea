"""Search for as few layers as possible that must stay in high precision so that every task stays within its budget.

The search knows nothing of graphs: a function tells it what a choice of layers costs each task. Its steps:

1. All layers quantized: if every task is within budget, done. All layers kept: if a task is over budget even so, no search helps.
2. Heads first: a layer of one head changes that task alone, so the heads of all tasks over budget are kept in one evaluation.
   A task that this brings within its budget needs no layer of the shared backbone.
3. Sensitivity, per layer and task: the drop with that layer alone quantized. The other way round, all quantized but one, shows
   nothing where each of two layers ruins a task. Partial quantization in Wu et al.: Integer Quantization for Deep Learning
   Inference, arXiv 2004.09602, measures the same; HAWQ (Dong et al., ICCV 2019, arXiv 1905.03696) and ModelOpt's
   ``auto_quantize`` estimate it from second derivatives or gradients, which takes a network that can be differentiated.
4. Greedy order: next comes the layer that reduces most by how much the tasks are over budget, by the sum of the sensitivities. The
   shortest prefix of that order within budget is found by bisection; each length that is tried is evaluated, so that nothing
   depends on the sum.
5. Backward: each layer kept, the least sensitive first, is quantized again, and stays quantized if all budgets are still met.

It takes at most ``3 + 2 * n + ceil(log2(n + 1))`` evaluations for ``n`` layers: none, all and the heads; one per layer for the
sensitivity; the bisection; one per layer on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Evaluate = Callable[[frozenset[str]], Mapping[str, float]]
"""From the layers kept in high precision to each task's drop; positive is worse, in the unit of the task's main metric."""

_WORST = 1e12
"""Replaces a drop that is NaN or infinite, so that sums and JSON stay finite."""

_SLACK = 1e-9
"""Drops are differences of means: 0.005 may be computed as 0.005000000000000004."""


@dataclass(frozen=True)
class Step:
    """One evaluation.

    Attributes:
        action: what was tried, for people.
        skip: the layers kept in high precision, in the graph's order.
        drops: by task.
        met: whether every budget was met.
    """

    action: str
    skip: tuple[str, ...]
    drops: dict[str, float]
    met: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        skip: the layers to keep in high precision, in the graph's order.
        drops: by task, with these layers kept.
        met: whether every budget is met; False only if one is missed with all layers kept as well.
        trail: every evaluation, in order.
    """

    skip: tuple[str, ...]
    drops: dict[str, float]
    met: bool
    trail: tuple[Step, ...]

    def steps(self) -> list[dict[str, Any]]:
        """Return the trail, ready for JSON; the layers of each step are counted, not listed."""
        return [
            {"action": step.action, "kept": len(step.skip), "drops": step.drops, "met": step.met} for step in self.trail
        ]


def search(
    nodes: Sequence[str],
    evaluate: Evaluate,
    budgets: Mapping[str, float],
    *,
    heads: Mapping[str, str | None],
    cost: Mapping[str, float],
    progress: Callable[[str], None] | None = None,
) -> SearchResult:
    """Find few layers that, if they are kept in high precision, bring every task within its budget.

    Args:
        nodes: the layers that can be quantized, in the graph's order.
        evaluate: from the layers kept to each task's drop; never called twice for the same layers. A drop that is NaN or
            infinite counts as 1e12.
        budgets: by task, the drop allowed, as :func:`~mtl_deploy.calibration.search.budgets.parse_budgets` returns it. Other
            tasks may lose any amount.
        heads: by layer, the only task that it serves; None, or no entry: it serves several.
        cost: by layer, its multiply-adds. Among layers that help equally the cheapest is kept.
        progress: called with one line before each evaluation.

    Returns:
        the layers, confirmed by an evaluation.
    """
    run = _Run(tuple(dict.fromkeys(nodes)), evaluate, dict(budgets), heads, cost, progress or (lambda _: None))
    quantized = run.step("all layers in INT8", ())
    if quantized.met:
        return run.result(quantized)
    kept = run.step("all layers in high precision", run.nodes)
    if not kept.met:
        return run.result(kept)
    best, harm = _forward(run, quantized, kept)
    return run.result(_backward(run, best, harm))


Harm = Mapping[str, Mapping[str, float]]
"""By layer and task: the drop with that layer alone in INT8."""


class _Run:
    """The evaluations of one search."""

    def __init__(
        self,
        nodes: tuple[str, ...],
        evaluate: Evaluate,
        budgets: dict[str, float],
        heads: Mapping[str, str | None],
        cost: Mapping[str, float],
        progress: Callable[[str], None],
    ) -> None:
        self.nodes = nodes
        self.budgets = budgets
        self.heads = heads
        self.cost = cost
        self.trail: list[Step] = []
        self._evaluate = evaluate
        self._progress = progress
        self._seen: dict[frozenset[str], Step] = {}

    def step(self, action: str, skip: Collection[str]) -> Step:
        """Evaluate a choice of layers, unless it has been evaluated already."""
        key = frozenset(skip)
        if key not in self._seen:
            self._progress(f"evaluation {len(self.trail) + 1}: {action}")
            found = self._evaluate(key)
            drops = {task: float(drop) if math.isfinite(drop) else _WORST for task, drop in found.items()}
            ordered = tuple(node for node in self.nodes if node in key)
            step = Step(action, ordered, drops, not _over(drops, self.budgets))
            self._seen[key] = step
            self.trail.append(step)
        return self._seen[key]

    def result(self, step: Step) -> SearchResult:
        return SearchResult(step.skip, step.drops, step.met, tuple(self.trail))


def _forward(run: _Run, quantized: Step, kept: Step) -> tuple[Step, Harm]:
    """Keep layers until every budget is met; return the first such choice, and what each layer was found to cost."""
    over = _over(quantized.drops, run.budgets)
    own = [node for node in run.nodes if run.heads.get(node) in over]
    start: list[str] = []
    if own:
        step = run.step(f"the heads of {', '.join(over)} in high precision", own)
        if step.met:
            return step, {}
        left = _over(step.drops, run.budgets)
        start = [node for node in own if run.heads.get(node) not in left]
        over = {task: excess for task, excess in over.items() if task in left}
    candidates = [node for node in run.nodes if run.heads.get(node) is None or run.heads[node] in over]
    harm = {}
    for number, node in enumerate(candidates, 1):
        alone = [other for other in run.nodes if other != node]
        step = run.step(f"{node} alone in INT8 (layer {number} of {len(candidates)})", alone)
        harm[node] = {task: step.drops[task] - kept.drops[task] for task in over}
    order = start + _ranked(candidates, harm, over, run.cost)
    order += [node for node in run.nodes if node not in set(order)]
    return _shortest(run, order, len(start), kept), harm


def _ranked(candidates: Sequence[str], harm: Harm, need: Mapping[str, float], cost: Mapping[str, float]) -> list[str]:
    """Order layers by how much each reduces what the tasks are over budget by, once the layers before it are kept."""
    remaining, left, order = dict(need), list(candidates), []

    def gain(node: str, needs: Mapping[str, float]) -> float:
        return sum(max(0.0, min(harm[node][task], needs[task])) / need[task] for task in need)

    while left:
        chosen = max(left, key=lambda node: (gain(node, remaining), gain(node, need), -cost.get(node, 0.0)))
        left.remove(chosen)
        order.append(chosen)
        remaining = {task: needed - max(0.0, harm[chosen][task]) for task, needed in remaining.items()}
    return order


def _shortest(run: _Run, order: Sequence[str], fails: int, kept: Step) -> Step:
    """Bisect between a length that fails and the whole order, which is within budget; return the shortest prefix found."""
    holds, best = len(order), kept
    while holds - fails > 1:
        length = (fails + holds) // 2
        step = run.step(f"the {length} most sensitive layers in high precision", order[:length])
        if step.met:
            holds, best = length, step
        else:
            fails = length
    return best


def _backward(run: _Run, best: Step, harm: Harm) -> Step:
    """Quantize kept layers again, one at a time, as long as every budget is met."""

    def worst(node: str) -> tuple[float, float]:
        found = harm.get(node, {})
        shares = (drop / max(run.budgets[task], _SLACK) for task, drop in found.items())
        return max(shares, default=math.inf), -run.cost.get(node, 0.0)

    for node in sorted(best.skip, key=worst):
        step = run.step(f"{node} back in INT8", [other for other in best.skip if other != node])
        if step.met:
            best = step
    return best


def _over(drops: Mapping[str, float], budgets: Mapping[str, float]) -> dict[str, float]:
    """Return the tasks over budget, each with by how much."""
    return {task: drops[task] - allowed for task, allowed in budgets.items() if not drops[task] <= allowed + _SLACK}
