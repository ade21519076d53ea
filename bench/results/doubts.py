"""What casts doubt on the figures of a batch size, as warnings: on the answer first, then on what else was measured."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.bench.contestants.specs import CONCURRENT, ONE_GRAPH, SEPARATE, SHARED
from mtl_deploy.bench.statistics.nested import ENOUGH_PROCESSES, spread

from .report import Report

NOISY = 0.1  # spread of the rounds from which a warning is due
WIDE = 0.05  # half of a ratio's interval, as a share of the ratio, from which one is due
ENOUGH_ROUNDS = 3  # in one process: a single round has no interval


def warnings(report: Report) -> list[str]:
    """Return the warnings of a batch size: first :func:`answer_warnings`, then those of other contestants and of sections."""
    rest = [name for name in report.specs if name not in _of_answer(report)]
    return [*answer_warnings(report), *_of(report, rest), *report.sections.all_warnings()]


def answer_warnings(report: Report) -> list[str]:
    """Return those that matter to the answer: of the machine, of how it was measured, and of the contestants that it names."""
    return [*report.notes, *_of(report, _of_answer(report)), *_few(report)]


def _of_answer(report: Report) -> list[str]:
    forms = (SEPARATE, CONCURRENT, ONE_GRAPH) if report.pair.engines else ()
    return [name for name in report.specs if name in (SHARED, report.main, *forms)]


def _of(report: Report, names: Sequence[str]) -> list[str]:
    """Return the warnings of some contestants."""
    return [*_noise(report, names), *_unsettled(report, names), *_wide(report, names)]


def _noise(report: Report, names: Sequence[str]) -> list[str]:
    noise = {report.specs[name].title: spread(report.nested(name)) for name in names}
    noisy = [f"of {title} spread by {100 * share:.0f} %" for title, share in noise.items() if share > NOISY]
    return [f"the rounds {', '.join(noisy)}: something else ran on the machine, or its clock varied"] if noisy else []


def _unsettled(report: Report, names: Sequence[str]) -> list[str]:
    stable = {name: all(one.stable for one in report.measurement.warm_up[name]) for name in names}
    unsettled = [report.specs[name].title for name, settled in stable.items() if not settled]
    return [f"not settled when the warm-up ended: {'; '.join(unsettled)}"] if unsettled else []


def _wide(report: Report, names: Sequence[str]) -> list[str]:
    half = {name: (one.high - one.low) / 2 / one.value for name, one in report.ratios.items() if name in names}
    wide = [f"{report.specs[name].title} ({100 * share:.0f} %)" for name, share in half.items() if share > WIDE]
    if not wide:
        return []
    return [
        "the machine was too noisy, or the time too short, for more than a rough ratio of these; half the width of their "
        f"intervals: {'; '.join(wide)}. Measure for longer with --duration, or in more --processes"
    ]


def _few(report: Report) -> list[str]:
    processes, rounds = report.measurement.processes, report.measurement.rounds
    if processes == 1 and rounds < ENOUGH_ROUNDS:
        return [
            f"the intervals come from {rounds} round{'s' if rounds > 1 else ''}: measure for longer with --duration"
        ]
    if processes >= ENOUGH_PROCESSES:
        return []
    number = "one process" if processes == 1 else f"{processes} processes"
    what = "do not cover" if processes == 1 else "are wide, since they hardly know"
    return [
        f"the intervals come from {number} and {what} what a restart changes; measure with --processes {ENOUGH_PROCESSES}"
    ]
