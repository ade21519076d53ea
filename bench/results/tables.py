"""One batch size as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.statistics.nested import Interval, spread
from mtl_deploy.runtime.console.command import table

if TYPE_CHECKING:
    from .report import Report


def render(report: Report) -> str:
    """Return the header, the figures of shared and separate, and all contestants."""
    sides = _sides(report)
    titles = {SHARED: "shared", SEPARATE: f"{len(report.pair.separate)} separate"}
    head = ["", *(titles[side] for side in sides), *(["ratio"] if len(sides) > 1 else [])]
    tables = [table(head, _rows(report, sides))]
    tables += _notes(report)
    if report.others:
        tables.append(_contestants(report))
    return "\n\n".join([_header(report), *tables])


def _notes(report: Report) -> list[str]:
    """Return the block of lines under the figures of the sides, where there is something to say."""
    ms, sides = _milliseconds(report), _sides(report)
    bounds = {side: report.quantiles[side]["p99"] for side in sides}
    ends = [f"{side} {ms.format(one.low)} to {ms.format(one.high)}" for side, one in bounds.items() if one is not None]
    lines = [f"p99, 95 % intervals in ms: {', '.join(ends)}."] if ends else []
    if any(one is None for side in sides for one in report.quantiles[side].values()):
        lines.append("n/a: too few calls to bound the quantile; measure for longer with --duration.")
    return ["\n".join(lines)] if lines else []


def _sides(report: Report) -> list[str]:
    return [side for side in (SHARED, SEPARATE) if side in report.specs]


def _header(report: Report) -> str:
    pair, environment, measurement = report.pair, report.environment, report.measurement
    images = f"{report.batch} image" + ("s" if report.batch > 1 else "")
    if pair.engines:
        how = f"CUDA graphs {'on' if report.settings.cuda_graphs else 'off'}"
    elif report.settings.threads is None:
        how = "default threads"
    else:
        how = f"{report.settings.threads} thread" + ("s" if report.settings.threads > 1 else "")
    times = f"{measurement.processes} process" + ("es" if measurement.processes > 1 else "")
    where = f"{environment['processor'] or environment['machine']}, {environment['usable_cores']} cores"
    return (
        f"{pair.bundle.path}: {pair.shared.precision}, {images} a call, {how}; {times}, {measurement.rounds} rounds in turn\n"
        f"{where}; {report.details[SHARED]}"
    )


def _rows(report: Report, sides: list[str]) -> list[list[str]]:
    ms = _milliseconds(report)
    rows = [
        _row(f"latency {word}, ms", [_value(report.quantiles[side][word]) for side in sides], ms)
        for word in report.quantiles[SHARED]
    ]
    rows.append(_row("latency mean, ms", [report.means[side].value for side in sides], ms))
    noise: list[float | None] = [100 * spread(report.nested(side)) for side in sides]
    rows.append(_row("spread of rounds, %", noise, "{:.1f}", ratio=False))
    rows.append(_row("images a second", [report.throughput(side) for side in sides], "{:.1f}"))
    for label, word, unit, form in (
        ("multiply-adds, G", "multiply_adds", 1e9, "{:.3f}"),
        ("parameters, M", "parameters", 1e6, "{:.2f}"),
        ("size on disk, MB", "size_bytes", 1e6, "{:.1f}"),
    ):
        rows.append(_row(label, [(report.specs[side].total(word) or 0) / unit for side in sides], form))
    if all(side in report.memory for side in sides):
        memory = [report.memory[side] for side in sides]
        rows.append(_row("peak memory, MB", [one.peak / 1e6 for one in memory], "{:.0f}"))
        rows.append(_row("  of it models, MB", [one.models / 1e6 for one in memory], "{:.0f}"))
        if all(one.gpu is not None for one in memory):
            rows.append(_row("GPU memory, MB", [(one.gpu or 0) / 1e6 for one in memory], "{:.0f}"))
    return rows


def _contestants(report: Report) -> str:
    """Return a row a contestant, with its ratio to the shared pass."""
    ms = _milliseconds(report)
    rows = []
    for name, spec in report.specs.items():
        median = _value(report.quantiles[name]["p50"])
        row = [spec.title, "n/a" if median is None else ms.format(median), f"{report.throughput(name):.1f}"]
        found = report.ratios.get(name)
        if found is None:
            rows.append([*row, "", ""])
            continue
        interval = f"{found.low:.2f} to {found.high:.2f}"
        rows.append([*row, f"{found.value:.2f}", f"{interval}, no difference" if found.contains(1) else interval])
    return table(["contestant", "latency p50, ms", "images a second", "ratio", "95 % interval"], rows)


def _milliseconds(report: Report) -> str:
    """Return how to write a latency: some calls take less than a millisecond."""
    return "{:.3f}" if report.pair.engines or report.means[SHARED].value < 1 else "{:.2f}"


def _value(estimate: Interval | None) -> float | None:
    return None if estimate is None else estimate.value


def _row(label: str, values: list[float | None], form: str, *, ratio: bool = True) -> list[str]:
    """Return a row's cells: the sides, and separate over shared."""
    cells = [label, *("n/a" if value is None else form.format(value) for value in values)]
    if len(values) < 2:
        return cells
    shared, separate = values
    return [*cells, f"{separate / shared:.2f}" if ratio and shared and separate else ""]
