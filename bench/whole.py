"""Measuring everything: each batch size, then what concerns all of them."""

from __future__ import annotations

from mtl_deploy.bench.machine.environment import after_warnings, snapshot
from mtl_deploy.bench.results.report import Report, Result
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import RunContext, Sections, collect
from mtl_deploy.runtime.console.command import INTERRUPTED, Progress
from mtl_deploy.runtime.errors import DeviceLostError, RunError

from . import run
from .plan import BenchmarkPlan
from .record import int8_measured
from .rerun import remeasuring


def measure_all(plan: BenchmarkPlan, progress: Progress) -> tuple[Result, int]:
    """Measure each batch size, then the sections of the whole run.

    Args:
        plan: what and how.
        progress: shows what is being measured.

    Returns:
        The result, and the exit code: of a batch size that failed or was interrupted, after others that were measured.

    Raises:
        MtlError: the first batch size failed.
        KeyboardInterrupt: nothing was measured yet.
    """
    reports: list[Report] = []
    warnings = list(plan.notes)
    before = snapshot()
    code = 0
    for size in plan.batches:
        try:
            report, interrupted = run.measure_batch(plan, size, progress)
            reports.append(report)
            code = INTERRUPTED if interrupted else 0
        except (RunError, KeyboardInterrupt) as error:
            if not reports:
                raise
            code = error.exit_code if isinstance(error, RunError) else INTERRUPTED
            warnings.append(f"batch {size} was not measured: {error if code != INTERRUPTED else 'interrupted'}")
        if code:
            break
    sections = Sections({}, [])
    if plan.beside and not code:
        try:
            sections = _run_sections(plan, reports, progress)
        except DeviceLostError as error:
            warnings.append(str(error))
            code = error.exit_code
        if sections.interrupted:
            warnings.append("interrupted before its time")
            code = INTERRUPTED
    if plan.beside and not code:
        try:
            warnings += int8_measured(plan.pair, plan.settings.threads, plan.settings.providers, progress)
        except KeyboardInterrupt:
            warnings.append("interrupted before its time")
            code = INTERRUPTED
    after = snapshot()
    return Result(plan, reports, sections, [*warnings, *after_warnings(before, after)], before, after), code


def _run_sections(plan: BenchmarkPlan, reports: list[Report], progress: Progress) -> Sections:
    batches = {report.batch: report.measurement for report in reports}
    smallest = min(batches)
    context = RunContext(plan, batches, progress, remeasuring(plan, smallest, batches[smallest], progress))
    return collect(registry.run_sections(), lambda section: section.measure(context, plan.sections[section.key]))
