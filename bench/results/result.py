"""The whole result: all batch sizes and what was measured beside them, for people and as the JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mtl_deploy.bench.contestants.specs import SHARED
from mtl_deploy.bench.sections.base import Sections

from . import saturation
from .report import Report
from .result_file import SCHEMA, SCHEMA_VERSION

if TYPE_CHECKING:
    from mtl_deploy.bench.run import Plan

RUN_KEYS = ("cold_start", "threads", "heads", "break_even")


@dataclass(frozen=True)
class Result:
    """A whole measurement.

    Attributes:
        plan: what was measured.
        reports: of each batch size, growing; one at least.
        sections: of the whole run.
        warnings: what speaks against the whole.
        before: the machine's state when measuring began; see :func:`~mtl_deploy.bench.machine.environment.snapshot`.
        after: likewise when it ended.
    """

    plan: Plan
    reports: Sequence[Report]
    sections: Sections
    warnings: Sequence[str] = ()
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None

    def answer(self) -> str:
        """Return the answer: the batch size's, or over all batch sizes."""
        return self.reports[0].answer() if len(self.reports) == 1 else saturation.answer(self.reports)

    def text(self) -> str:
        """Return everything for people."""
        warnings = [*self.warnings, *self.sections.all_warnings()]
        if len(self.reports) == 1:
            return self.reports[0].text(self.sections.text(), warnings) + "\n"
        blocks = [*(report.text() for report in self.reports), saturation.text(self.reports), *self.sections.text()]
        blocks.append("\n".join([*(f"warning: {warning}" for warning in warnings), self.answer()]))
        return "\n\n".join(blocks) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document; docs/benchmarking.md describes it."""
        plan, last = self.plan, self.reports[-1]
        manifest, pair = plan.pair.bundle.manifest, plan.pair
        sections = dict.fromkeys(RUN_KEYS) | self.sections.to_dict()
        preprocessing = manifest.signature.preprocessing
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": plan.command,
            "bundle": {
                "path": str(pair.bundle.path),
                "name": manifest.name,
                "tasks": [task.name for task in manifest.tasks],
                "input": [preprocessing.height, preprocessing.width],
            },
            "precision": pair.shared.precision,
            "backend": pair.shared.backend,
            "details": last.details[SHARED],
            "settings": asdict(plan.settings)
            | {
                "isolation": "process" if plan.isolated else "none",
                "processes": plan.processes,
                "builds": max(len(plan.builds), 1),
                "duration_s": plan.seconds,
            },
            "seed": plan.seed,
            "environment": plan.environment | {"before": self.before, "after": self.after},
            "contestants": self._contestants(),
            "excluded": {name: reason for report in self.reports for name, reason in report.excluded.items()},
            "ideal": {"multiply_adds": last.ideal, "bytes": last.ideal_bytes},
            "batches": [report.to_dict() for report in self.reports],
            "largest_throughput": saturation.largest(self.reports) if len(self.reports) > 1 else None,
            "cold_start": sections["cold_start"],
            "scaling": {"threads": sections["threads"], "heads": sections["heads"]},
            "break_even": sections["break_even"],
            "accuracy": manifest.accuracy,
            "verification": list(manifest.verification),
            "warnings": [*self.warnings, *self.sections.all_warnings()],
            "answer": self.answer(),
        }

    def _contestants(self) -> dict[str, Any]:
        return {
            name: {
                "title": spec.title,
                "kind": spec.kind,
                "precision": spec.precision,
                "details": report.details[name],
                "artifacts": [artifact.path for artifact in spec.artifacts],
                "tasks": list(spec.tasks),
                **{word: spec.total(word) for word in ("size_bytes", "parameters", "multiply_adds")},
            }
            for report in self.reports
            for name, spec in report.specs.items()
        }
