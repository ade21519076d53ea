"""The whole result as data: all batch sizes, and what was measured beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_deploy.bench.plan import BenchmarkPlan
from mtl_deploy.bench.sections.base import Sections

from .report import Report


@dataclass(frozen=True)
class Result:
    """A whole measurement.

    Attributes:
        plan: what was measured.
        reports: of each batch size, growing; one at least.
        sections: of the whole run.
        warnings: what casts doubt on the whole.
        before: the machine's state when measuring began; see :func:`~mtl_deploy.bench.machine.environment.snapshot`.
        after: likewise when it ended.
    """

    plan: BenchmarkPlan
    reports: Sequence[Report]
    sections: Sections
    warnings: Sequence[str] = ()
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
