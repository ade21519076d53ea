"""What casts doubt on the figures of a batch size, as warnings."""

from __future__ import annotations

from mtl_deploy.bench.statistics.nested import ENOUGH_PROCESSES, spread

from .report import Report

NOISY = 0.1  # spread of the rounds from which a warning is due
WIDE = 0.05  # half of a ratio's interval, as a share of the ratio, from which one is due
ENOUGH_ROUNDS = 3  # in one process: a single round has no interval


def warnings(report: Report) -> list[str]:
    """Return the warnings of a batch size, those of its sections last."""
    found = [*report.notes, *_noise(report), *_unsettled(report), *_wide(report), *_few(report)]
    return found + report.sections.all_warnings()


def _noise(report: Report) -> list[str]:
    noise = {spec.title: spread(report.nested(name)) for name, spec in report.specs.items()}
    noisy = [f"of {title} spread by {100 * share:.0f} %" for title, share in noise.items() if share > NOISY]
    return [f"the rounds {', '.join(noisy)}: something else ran on the machine, or its clock varied"] if noisy else []


def _unsettled(report: Report) -> list[str]:
    stable = {name: all(one.stable for one in report.measurement.warm_up[name]) for name in report.specs}
    unsettled = [report.specs[name].title for name, settled in stable.items() if not settled]
    return [f"not settled when the warm-up ended: {'; '.join(unsettled)}"] if unsettled else []


def _wide(report: Report) -> list[str]:
    half = {name: (one.high - one.low) / 2 / one.value for name, one in report.ratios.items()}
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
