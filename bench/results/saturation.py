"""Several batch sizes side by side: where throughput stops growing, and what sharing gains there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtl_deploy.bench.contestants.specs import SEPARATE, SUBSET

from .report import Report
from .wording import number, verdict

_GROWING = 1.05  # a throughput that was this much less at the batch before is still growing


def answer(reports: Sequence[Report]) -> str:
    """Return what sharing gains at each batch, in one sentence; and each contestant's largest throughput, and where it is."""
    return " ".join([*_gains(reports), _throughputs(reports)])


def _gains(reports: Sequence[Report]) -> list[str]:
    """Return the ratios over the batches; empty where the separate models were not measured."""
    having = [one for one in reports if SEPARATE in one.others]
    if not having:
        return []
    count = len(having[0].pair.separate)
    word = "engines" if having[0].pair.engines else "models"
    found = ", ".join(f"{verdict(one.ratios[SEPARATE])} at batch {one.batch}" for one in having)
    return [f"One shared pass against {number(count)} separate {word} in sequence: {found}."]


def _throughputs(reports: Sequence[Report]) -> str:
    found, growing = [], []
    titles = {name: title for name, title in _titles(reports).items() if name not in _subsets(reports)}
    for name, one in largest(reports).items():
        if name not in titles:
            continue
        found.append(f"{titles[name]} {one['images_per_s']:.1f} images per second at batch {one['batch']}")
        if one["still_growing"]:
            growing.append(titles[name])
    end = f" Still growing at the largest batch: {', '.join(growing)}; measure larger ones." if growing else ""
    return f"Largest throughput: {'; '.join(found)}.{end}"


def largest(reports: Sequence[Report]) -> dict[str, dict[str, Any]]:
    """Return each contestant's largest throughput, its batch, and whether it still grew by 5 % at the largest batch."""
    found = {}
    for name in _titles(reports):
        having = [report for report in reports if name in report.specs]
        best = max(having, key=lambda report: report.throughput(name))
        grows = len(having) > 1 and having[-1].throughput(name) > _GROWING * having[-2].throughput(name)
        found[name] = {"batch": best.batch, "images_per_s": best.throughput(name), "still_growing": grows}
    return found


def _subsets(reports: Sequence[Report]) -> set[str]:
    """Return the contestants that compute some tasks alone: their throughput is no answer."""
    return {name for report in reports for name, spec in report.specs.items() if spec.kind == SUBSET}


def _titles(reports: Sequence[Report]) -> dict[str, str]:
    return {name: spec.title for report in reports for name, spec in report.specs.items()}
