"""Several batch sizes side by side: where throughput ends to grow, and what sharing gains there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl_deploy.runtime.console import table

from .contestants import FORMS
from .report import SCHEMA_VERSION, Report

_GROWING = 1.05  # a throughput that was this much less at the batch before has not ended to grow


def text(reports: Sequence[Report]) -> str:
    """Return every report, and the table over all batch sizes.

    Args:
        reports: one or more, by growing batch size.
    """
    if len(reports) == 1:
        return reports[0].text()
    first = reports[0]
    rows = [
        [_title(first, name), *(f"{one.throughput(name):.1f}" if name in _names(one) else "n/a" for one in reports)]
        for name in _names(first)
    ]
    rows += [
        [
            f"ratio {FORMS[name]}" if first.pair.engines else "ratio",
            *(f"{one.ratio_to(name).value:.2f}" if name in one.forms else "n/a" for one in reports),
        ]
        for name in first.forms
    ]
    over_all = table(["images a second", *(f"batch {one.batch}" for one in reports)], rows)
    return "\n".join([*(one.text() for one in reports), over_all, "", f"{answer(reports)}\n"])


def answer(reports: Sequence[Report]) -> str:
    """Return the largest throughput of each contestant and its batch, in one sentence, and whether it may still grow."""
    found, growing = [], []
    for name in _names(reports[0]):
        having = [report for report in reports if name in _names(report)]
        best = max(having, key=lambda report: report.throughput(name))
        title = _title(best, name)
        found.append(f"{title} {best.throughput(name):.1f} images a second at batch {best.batch}")
        if _still_grows(having, name):
            growing.append(title)
    end = f" Still growing at the largest batch: {', '.join(growing)}; measure larger ones." if growing else ""
    return f"Largest throughput: {'; '.join(found)}.{end}"


def document(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the JSON document: a report's, or for several batch sizes a list of them."""
    if len(reports) == 1:
        return reports[0].to_dict()
    largest = {}
    for name in _names(reports[0]):
        having = [report for report in reports if name in _names(report)]
        best = max(having, key=lambda report: report.throughput(name))
        largest[name] = {
            "batch": best.batch,
            "images_per_s": best.throughput(name),
            "still_growing": _still_grows(having, name),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "bundle": str(reports[0].pair.bundle.path),
        "batches": [report.to_dict() for report in reports],
        "largest_throughput": largest,
        "answer": answer(reports),
    }


def _still_grows(reports: Sequence[Report], name: str) -> bool:
    if len(reports) < 2:
        return False
    before, last = reports[-2:]
    return last.throughput(name) > _GROWING * before.throughput(name)


def _names(report: Report) -> tuple[str, ...]:
    return ("shared", *report.forms)


def _title(report: Report, name: str) -> str:
    if name == "shared":
        return name
    count = f"{len(report.pair.separate)} separate"
    return f"{count} {FORMS[name]}" if report.pair.engines else count
