"""A report as tables for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.console import table

from .contestants import FORMS
from .statistics import Interval, quantile, spread

if TYPE_CHECKING:
    from .report import Report

SIDES = ("shared", "separate")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def render(report: Report) -> str:
    """Return everything that is printed, but for the answer."""
    titles = {"shared": "shared", "separate": f"{len(report.pair.separate)} separate"}
    rows = [[label, *cells] for label, cells in _rows(report)]
    tables = [table(["", *titles.values(), "ratio"], rows)]
    if report.pair.engines:
        tables.append(_forms(report, titles["separate"]))
    if report.timings is not None:
        tables.append(report.timings.text(titles))
    return "\n\n".join([_header(report), *tables])


def notes(report: Report) -> str:
    """Return the lines under the tables."""
    ms = _milliseconds(report)
    bounds = {side: quantile(report.measurement.calls(side), QUANTILES["p99"]) for side in SIDES}
    ends = [
        f"{side} {ms.format(found.low)} to {ms.format(found.high)}"
        for side, found in bounds.items()
        if found is not None
    ]
    lines = [f"p99, 95 % intervals in ms: {', '.join(ends)}."] if ends else []
    if any(quantile(report.measurement.calls(side), share) is None for side in SIDES for share in QUANTILES.values()):
        lines.append("n/a: too few calls to bound the quantile; measure for longer with --duration.")
    lines += [f"warning: {warning}" for warning in report.all_warnings()]
    return "".join(f"{line}\n" for line in lines)


def _header(report: Report) -> str:
    pair, environment = report.pair, report.environment
    images = f"{report.batch} image" + ("s" if report.batch > 1 else "")
    if pair.engines:
        how = f"CUDA graphs {'on' if report.settings.cuda_graphs else 'off'}"
    elif report.settings.threads is None:
        how = "default threads"
    else:
        how = f"{report.settings.threads} thread" + ("s" if report.settings.threads > 1 else "")
    where = f"{environment['processor'] or environment['machine']}, {environment['usable_cores']} cores"
    return (
        f"{pair.bundle.path}: {pair.shared.precision}, {images} a call, {how}; {report.measurement.rounds} rounds in turn\n"
        f"{where}; {report.backend}"
    )


def _rows(report: Report) -> list[tuple[str, list[str]]]:
    calls = {side: report.measurement.calls(side) for side in SIDES}
    ms = _milliseconds(report)
    rows = []
    for name, share in QUANTILES.items():
        rows.append(_row(f"latency {name}, ms", [_value(quantile(calls[side], share)) for side in SIDES], ms))
    rows.append(_row("latency mean, ms", [float(calls[side].mean()) for side in SIDES], ms))
    noise = [100 * spread(report.rounds_of(side)) for side in SIDES]
    rows.append(_row("spread of rounds, %", noise, "{:.1f}", ratio=False))
    rows.append(_row("images a second", [report.throughput(side) for side in SIDES], "{:.1f}"))
    for label, field, unit, form in (
        ("multiply-adds, G", "multiply_adds", 1e9, "{:.3f}"),
        ("parameters, M", "parameters", 1e6, "{:.2f}"),
        ("size on disk, MB", "size_bytes", 1e6, "{:.1f}"),
    ):
        rows.append(_row(label, [report.total(side, field) / unit for side in SIDES], form))
    if report.memory:
        memory = [report.memory[side] for side in SIDES]
        rows.append(_row("peak memory, MB", [one.peak / 1e6 for one in memory], "{:.0f}"))
        rows.append(_row("  of it models, MB", [one.models / 1e6 for one in memory], "{:.0f}"))
        if all(one.gpu is not None for one in memory):
            rows.append(_row("GPU memory, MB", [(one.gpu or 0) / 1e6 for one in memory], "{:.0f}"))
    return rows


def _forms(report: Report, title: str) -> str:
    """Return the separate engines' table: each form that they can take, with its ratio to the shared pass."""
    rows = []
    for name in report.forms:
        found, calls = report.ratio_to(name), report.measurement.calls(name)
        rows.append(
            [
                FORMS[name],
                _milliseconds(report).format(np.median(calls)),
                f"{report.throughput(name):.1f}",
                f"{found.value:.2f}",
                f"{found.low:.2f} to {found.high:.2f}",
            ]
        )
    return table([title, "latency p50, ms", "images a second", "ratio", "95 % interval"], rows)


def _milliseconds(report: Report) -> str:
    """Return how to write a latency: calls of engines often take less than a millisecond."""
    return "{:.3f}" if report.pair.engines else "{:.2f}"


def _value(estimate: Interval | None) -> float | None:
    return None if estimate is None else estimate.value


def _row(label: str, values: list[Any], form: str, *, ratio: bool = True) -> tuple[str, list[str]]:
    """Return a row's cells: both sides, and separate over shared."""
    show: Callable[[float | None], str] = lambda value: "n/a" if value is None else form.format(value)  # noqa: E731
    shared, separate = values
    quotient = separate / shared if ratio and shared and separate else np.nan
    return label, [show(shared), show(separate), "" if np.isnan(quotient) else f"{quotient:.2f}"]
