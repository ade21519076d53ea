"""From the result to the JSON document, which all that is shown is made from; docs/benchmarking.md describes it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.statistics.nested import process_spread, spread

from . import saturation, wording
from .doubts import answer_warnings, warnings
from .report import Report, Result
from .result_file import SCHEMA, SCHEMA_VERSION


def document_of(result: Result) -> dict[str, Any]:
    """Return the document."""
    plan, reports, last = result.plan, result.reports, result.reports[-1]
    manifest, pair = plan.pair.bundle.manifest, plan.pair
    several = len(reports) > 1
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
            "kinds": [task.kind for task in manifest.tasks],
            "sizes": [task.size for task in manifest.tasks],
            "input": [preprocessing.height, preprocessing.width],
            "channels": preprocessing.channel_count,
            "checkpoint_sha256": manifest.provenance.get("checkpoint", {}).get("sha256"),
        },
        "precision": pair.shared.precision,
        "backend": pair.backend,
        "details": last.details[SHARED],
        "settings": {name: value for name, value in asdict(plan.settings).items() if name not in ("backend", "mode")}
        | {
            "isolation": "process" if plan.isolated else "none",
            "processes": plan.processes,
            "builds": max(len(plan.builds), 1),
            "duration_s": plan.seconds,
        },
        "seed": plan.seed,
        "environment": plan.environment | {"before": result.before, "after": result.after},
        "contestants": _contestants(result),
        "excluded": {name: reason for report in reports for name, reason in report.excluded.items()},
        "ideal": {"multiply_adds": last.ideal, "bytes": last.ideal_bytes},
        "batches": [batch_document(report) for report in reports],
        "largest_throughput": saturation.largest(reports) if several else None,
        **result.sections.to_dict(registry.run_sections()),
        "accuracy": manifest.accuracy,
        "verification": list(manifest.verification),
        "warnings": [*result.warnings, *result.sections.all_warnings()],
        "answer_warnings": list(result.warnings),
        "answer": saturation.answer(reports) if several else wording.answer(reports[0]),
    }


def batch_document(report: Report) -> dict[str, Any]:
    """Return a batch size's part of the document."""
    main = report.ratios.get(SEPARATE)
    return {
        "batch": report.batch,
        "processes": report.measurement.processes,
        "rounds": report.measurement.rounds,
        "contestants": {name: _measured(report, name) for name in report.specs},
        "agreement": {
            name: {task: asdict(one) for task, one in tasks.items()}
            for name, tasks in report.agreement.items()
            if name in report.specs
        },
        "ratios": {
            name: asdict(one) | {"confidence": 0.95, "difference": not one.contains(1)}
            for name, one in report.ratios.items()
        },
        "of_ideal": None if main is None else main.value / report.ideal,
        **report.sections.to_dict(registry.batch_sections()),
        "warnings": warnings(report),
        "answer_warnings": answer_warnings(report),
        "answer": wording.answer(report),
    }


def _contestants(result: Result) -> dict[str, Any]:
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
        for report in result.reports
        for name, spec in report.specs.items()
    }


def _measured(report: Report, name: str) -> dict[str, Any]:
    measurement, memory = report.measurement, report.memory.get(name)
    parts, nested = measurement.parts_ms.get(name), report.nested(name)
    quantiles = {word: None if one is None else asdict(one) for word, one in report.quantiles[name].items()}
    return {
        "calls": len(measurement.calls(name)),
        "warm_up": [asdict(one) for one in measurement.warm_up[name]],
        "latency_ms": {"mean": asdict(report.means[name])} | quantiles,
        "images_per_s": report.throughput(name),
        "round_spread": spread(nested),
        "process_spread": process_spread(nested),
        "parts_ms": {task: float(np.median(times)) for task, times in parts.items()} if parts else None,
        "memory_bytes": None if memory is None else asdict(memory) | {"models": memory.models},
        "activation_bytes": report.activations.get(name),
        "samples_ms": [[[round(float(v), 6) for v in calls] for calls in rounds] for rounds in nested],
    }
