"""Confirming a choice of layers on images that were not used to choose it.

A search takes the choice that looks best on its images, so its choice looks better there than it is: if a point estimate decided,
many budgets would be called met that are not. So the search's choice is confirmed on images that it has not seen: for each task, in
both styles, the upper end of the drop's 95 % interval must lie within the budget. That end is wrong in 2.5 % of cases, and as
*every* task must pass, a choice that exceeds the budget of one task passes no more often than that (an intersection-union test:
Berger, Technometrics 24:295-300, 1982).

More than one look at the confirming images would make a chance hit more likely, so the 5 % are split in two:

1. 2.5 % for the search's choice.
2. If that is not confirmed, 2.5 % for a walk from the safest choice, all layers in high precision, to the search's choice. Its
   steps depend on the search's images alone, and each is half as far from the search's choice as the one before. The walk ends at
   the first step that is not confirmed; the last one that was confirmed is taken. Such a fixed sequence needs no further
   correction, however many steps it has: Maurer, Hothorn, Lehmacher 1995; Angelopoulos, Bates, Candes, Jordan, Lei: Learn then
   Test, arXiv 2110.01052.

So a choice over budget is called met in at most 5 % of runs. The search itself looks for what will probably be confirmed: it judges
a choice by the upper end that the number of confirming images would give, plus a margin that is enough in 80 % of cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from mtl_deploy.calibration.accuracy.matrix import json_ready
from mtl_deploy.calibration.accuracy.paired_losses import POWER_Z, Sample, beyond, images_needed, within

from .layers import SearchResult, search

Look = Callable[[frozenset[str]], Mapping[str, Sequence[Sample]]]
"""From the layers kept in high precision to each task's drop, one sample per style; all of them must be within the budget."""

Outcome = Literal["met", "undecided", "missed"]
"""``met``: the confirming images show that every drop is within its budget. ``missed``: the images show a drop beyond its budget
even with all layers in high precision. ``undecided``: they show neither."""

_SLACK = 1e-9


@dataclass(frozen=True)
class Shown:
    """What the confirming images show of one task.

    Attributes:
        drop: of the style in which it is larger.
        low: lower end of its 95 % interval.
        high: upper end.
        budget: what the task may lose.
        images: number of images that were measured on.
        needed: about how many images would show in 80 % of cases that the drop is within its budget; None where no number would,
            because the measured drop exceeds it.
    """

    drop: float
    low: float
    high: float
    budget: float
    images: int
    needed: int | None

    @property
    def met(self) -> bool:
        """Whether the drop is shown to be within its budget."""
        return self.high <= self.budget + _SLACK


@dataclass(frozen=True)
class Confirmed:
    """The outcome of a search and its confirmation.

    Attributes:
        outcome: see :data:`Outcome`.
        skip: the layers to keep in high precision, in the graph's order; if the outcome is undecided, those with which the drops
            themselves, without their intervals, are within the budgets.
        tasks: by task with a budget, what the confirming images show of that choice.
        search: the search, with each evaluation on its images.
        looks: each choice that was put to the test: what it was, how many layers it keeps, and whether it was confirmed.
        wished: how many times as many images would probably confirm the search's own choice, where a safer one was taken;
            otherwise, or where no number would, None.
    """

    outcome: Outcome
    skip: tuple[str, ...]
    tasks: Mapping[str, Shown]
    search: SearchResult
    looks: tuple[tuple[str, int, bool], ...]
    wished: float | None = None

    @property
    def open(self) -> dict[str, Shown]:
        """The tasks whose drop is not shown to be within its budget."""
        return {name: shown for name, shown in self.tasks.items() if not shown.met}

    @property
    def images(self) -> int:
        """Number of confirming images, of the task that has most."""
        return max((shown.images for shown in self.tasks.values()), default=0)

    @property
    def times(self) -> float | None:
        """How many times as many images would probably show every drop to be within its budget; None where no number would."""
        return _times(self.tasks)

    def to_dict(self, cost: float, images: int) -> dict[str, Any]:
        """Return a JSON-ready dict.

        Args:
            cost: the kept layers' share of all multiply-adds.
            images: number of all images, of which only some are used to confirm.
        """
        record = {
            "outcome": self.outcome,
            "met": self.outcome == "met",
            "skip": list(self.skip),
            "drops": {name: shown.drop for name, shown in self.tasks.items()},
            "drop_low": {name: shown.low for name, shown in self.tasks.items()},
            "drop_high": {name: shown.high for name, shown in self.tasks.items()},
            "budgets": {name: shown.budget for name, shown in self.tasks.items()},
            "images": {name: shown.images for name, shown in self.tasks.items()},
            "images_needed": {name: shown.needed for name, shown in self.open.items()},
            "images_needed_in_all": None if self.times is None else math.ceil(self.times * images),
            "images_for_fewer_layers": None if self.wished is None else math.ceil(self.wished * images),
            "cost": cost,
            "looks": [{"choice": text, "kept": kept, "confirmed": met} for text, kept, met in self.looks],
            "evaluations": len(self.search.trail),
            "trail": self.search.steps(),
        }
        return {key: json_ready(value) for key, value in record.items()}


def confirmed_search(
    nodes: Sequence[str],
    look: Look,
    confirm: Look,
    budgets: Mapping[str, float],
    *,
    images: Mapping[str, int],
    heads: Mapping[str, str | None],
    cost: Mapping[str, float],
    progress: Callable[[str], None] = lambda _: None,
) -> Confirmed:
    """Find few layers that must be kept in high precision, and show that every task is then within its budget.

    Args:
        nodes: the layers that can be quantized, in the graph's order.
        look: measures what a choice costs, on the images for searching.
        confirm: the same on other images, none of which ``look`` uses; called once for the search's choice and, if that fails, at
            most ``2 + log2(len(nodes))`` times more.
        budgets: by task, the drop allowed. Other tasks may lose any amount.
        images: by task, the number of images that ``confirm`` uses.
        heads: see :func:`~mtl_deploy.calibration.search.layers.search`.
        cost: likewise.
        progress: called with one line before each evaluation.
    """
    nodes = tuple(dict.fromkeys(nodes))
    seen, confirmations = cache(look), cache(confirm)
    looks: list[tuple[str, int, bool]] = []

    def judged(skip: frozenset[str]) -> dict[str, Shown]:
        found = confirmations(skip)
        return {name: _shown(found[name], seen(skip)[name], allowed) for name, allowed in budgets.items()}

    def confirmed(text: str, skip: frozenset[str]) -> bool:
        progress(f"confirming {text}")
        met = all(shown.met for shown in judged(skip).values())
        looks.append((text, len(skip), met))
        return met

    everything = frozenset(nodes)
    found = _searched(nodes, seen, images, budgets, heads, cost, progress)
    chosen = frozenset(found.skip)
    if confirmed("the search's choice", chosen):
        return Confirmed("met", found.skip, judged(chosen), found, tuple(looks))
    last: frozenset[str] | None = None
    for text, skip in _walk(nodes, chosen, seen, budgets, progress):
        if not confirmed(text, skip):
            break
        last = skip
    if last is not None:
        wished = _times(judged(chosen))
        return Confirmed("met", _ordered(nodes, last), judged(last), found, tuple(looks), wished)
    if _missed([seen(everything), confirmations(everything)], budgets):
        return Confirmed("missed", nodes, judged(everything), found, tuple(looks))
    plausible = all(shown.drop <= shown.budget + _SLACK for shown in judged(chosen).values())
    taken = chosen if plausible else everything
    return Confirmed("undecided", _ordered(nodes, taken), judged(taken), found, tuple(looks))


def _searched(
    nodes: Sequence[str],
    look: Look,
    counts: Mapping[str, int],
    budgets: Mapping[str, float],
    heads: Mapping[str, str | None],
    cost: Mapping[str, float],
    progress: Callable[[str], None],
) -> SearchResult:
    """Search for a choice that this many images will probably confirm; if there is none, for one whose drops are within budget."""

    def probable(skip: frozenset[str]) -> dict[str, float]:
        found = look(skip)
        return {name: max(each.high_on(counts[name], POWER_Z) for each in found[name]) for name in budgets}

    def measured(skip: frozenset[str]) -> dict[str, float]:
        return {name: max(each.drop for each in found) for name, found in look(skip).items()}

    found = search(nodes, probable, budgets, heads=heads, cost=cost, progress=progress)
    return found if found.met else search(nodes, measured, budgets, heads=heads, cost=cost, progress=progress)


def _walk(
    nodes: Sequence[str],
    chosen: frozenset[str],
    look: Look,
    budgets: Mapping[str, float],
    progress: Callable[[str], None],
) -> list[tuple[str, frozenset[str]]]:
    """Return the steps of the walk: from all layers kept towards the search's choice, halving the extra layers each time."""
    everything = frozenset(nodes)
    rest = [node for node in nodes if node not in chosen]
    steps = [("all layers in high precision", everything)]
    if len(rest) < 2:
        return steps
    none = look(everything)
    harm = {}
    for number, node in enumerate(rest, 1):
        progress(f"{node} alone in INT8 (layer {number} of {len(rest)})")
        alone = look(everything - {node})
        harm[node] = max(
            (one.drop - other.drop) / max(allowed, _SLACK)
            for name, allowed in budgets.items()
            for one, other in zip(alone[name], none[name], strict=True)
        )
    rest.sort(key=harm.__getitem__, reverse=True)
    count = len(rest) // 2
    while count:
        layers = "1 layer more" if count == 1 else f"{count} layers more"
        steps.append((f"the search's choice and {layers}", chosen | frozenset(rest[:count])))
        count //= 2
    return steps


def _shown(samples: Sequence[Sample], searched: Sequence[Sample], budget: float) -> Shown:
    """Return what the confirming images show; the number that is needed is estimated from the search's images as well."""
    worst = max(samples, key=lambda sample: sample.interval[1])
    pairs = zip(samples, searched, strict=True)
    numbers = [images_needed(one.joined(other), budget) for one, other in pairs if not within(one, budget)]
    needed = None if None in numbers else max((number for number in numbers if number), default=None)
    drop = max(sample.drop for sample in samples)
    return Shown(drop, worst.interval[0], worst.interval[1], budget, worst.images, needed)


def _times(tasks: Mapping[str, Shown]) -> float | None:
    """Return how many times as many images the open tasks need."""
    found = [None if shown.needed is None else shown.needed / shown.images for shown in tasks.values() if not shown.met]
    numbers = [times for times in found if times is not None]
    return max(numbers) if numbers and len(numbers) == len(found) else None


def _missed(looks: Sequence[Mapping[str, Sequence[Sample]]], budgets: Mapping[str, float]) -> bool:
    """Return whether one of several sets of images shows a task beyond its budget, for a choice that no search has made."""
    return any(
        beyond(sample, allowed) for found in looks for name, allowed in budgets.items() for sample in found[name]
    )


def _ordered(nodes: Sequence[str], skip: frozenset[str]) -> tuple[str, ...]:
    return tuple(node for node in nodes if node in skip)
