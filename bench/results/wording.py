"""What was found, in one sentence."""

from __future__ import annotations

from mtl_deploy.bench.blocks.kinds import printed
from mtl_deploy.bench.contestants.specs import CONCURRENT, ONE_GRAPH, SEPARATE, SHARED
from mtl_deploy.bench.statistics.nested import Interval

from .report import Report

_LARGE_HEADS = 0.05  # share of the shared pass from which heads, or decoders, are the reason for a small ideal
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FORMS = {SEPARATE: "in sequence", CONCURRENT: "on one stream each", ONE_GRAPH: "as one CUDA graph"}
"""The forms of the separate engines, in words."""


def answer(report: Report) -> str:
    """Return the answer for a batch size."""
    name = report.main
    if name is None:
        return f"One shared pass takes {printed(report.means[SHARED].value, 'ms')} ms on average; nothing else was measured."
    heads = report.heads_share
    own = f" ({100 * heads:.0f} % of them are the heads' own)" if heads >= _LARGE_HEADS else ""
    ideal = f"the multiply-adds allow {report.ideal:.2f}{own}"
    count = number(len(report.pair.separate))
    forms = [form for form in FORMS if form in report.others]
    if report.pair.engines and forms:
        verdicts = ", ".join(f"{FORMS[form]} {verdict(report.ratios[form])}" for form in forms)
        fastest = min(report.ratios[form].value for form in forms)
        reached = f"{100 * fastest / report.ideal:.0f} % of the ideal against the fastest of these"
        return f"One shared pass against {count} separate engines: {verdicts}; {ideal}: {reached}."
    found = report.ratios[name]
    models = f"{count} separate models" if name == SEPARATE else report.specs[name].title
    interval = f"95 % interval {found.low:.2f} to {found.high:.2f}"
    end = f"; {ideal}" if name == SEPARATE else ""
    if found.contains(1):
        return f"No difference between one shared pass and {models} ({interval}){end}."
    if found.value < 1:
        return f"One shared pass takes {1 / found.value:.2f} times the time of {models} (ratio {found.value:.2f}, {interval})."
    reached = f": {100 * found.value / report.ideal:.0f} % of the ideal" if name == SEPARATE else ""
    return f"One shared pass is {found.value:.2f} times as fast as {models} ({interval}){end}{reached}."


def number(count: int) -> str:
    """Return a small number in words."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def verdict(found: Interval) -> str:
    """Say how a contestant's time compares with the shared pass's, seen from the latter."""
    interval = f"(95 % interval {found.low:.2f} to {found.high:.2f})"
    if found.contains(1):
        return f"no difference {interval}"
    if found.value < 1:
        return f"{1 / found.value:.2f} times as slow {interval}"
    return f"{found.value:.2f} times as fast {interval}"
