"""``mtl-bench``: what sharing a backbone buys, here, on this machine."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.console.command import INTERRUPTED, Progress, run_command
from mtl_deploy.runtime.errors import DeviceLostError, OptionError, RunError

from .options import bench_parser, checked

if TYPE_CHECKING:
    from mtl_deploy.bench.results.report import Report
    from mtl_deploy.bench.results.result import Result

    from .options import Checked
    from .run import Plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench``, ``mtl-bench compare`` or ``mtl-bench report`` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["compare"]:
        from mtl_deploy.bench.results import compare

        return compare.main(given[1:])
    if given[:1] == ["report"]:
        from mtl_deploy.bench.html import page as html

        return html.main(given[1:])
    return run_command(lambda: _bench(bench_parser().parse_args(given), given))


def _bench(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    from tempfile import TemporaryDirectory

    options = checked(arguments)
    progress = Progress(quiet=arguments.quiet)
    plan = _plan(arguments, options, shlex.join(["mtl-bench", *given]))
    with TemporaryDirectory(prefix="mtl-bench-") as folder:
        if arguments.builds > 1:
            plan = _with_builds(plan, arguments.builds, Path(folder), progress)
        result, code = measured(plan, options.batches, progress)
    _deliver(result, arguments)
    return code


def _with_builds(plan: Plan, count: int, folder: Path, progress: Progress) -> Plan:
    from mtl_deploy.bench.contestants.peers.builds import built_specs, make_builds

    bundles = make_builds(plan.pair.bundle.path, plan.pair.shared, count, folder, progress)
    return replace(plan, builds=tuple(built_specs(plan.specs, bundle) for bundle in bundles))


def _plan(arguments: argparse.Namespace, options: Checked, command: str) -> Plan:
    from mtl_deploy.bench.contestants.pair import Settings, find_pair, require_batch
    from mtl_deploy.bench.contestants.specs import chosen_specs
    from mtl_deploy.bench.machine.environment import environment
    from mtl_deploy.bench.sections import registry as extras

    from .run import Plan

    providers = tuple(arguments.provider) if arguments.provider else None
    threads = options.threads[0] if options.threads else None
    settings = Settings(providers, threads, arguments.spinning, not arguments.no_cuda_graphs)
    pair = find_pair(arguments.path, arguments.precision, providers, arguments.backend)
    for size in options.batches:  # not after minutes of measuring
        require_batch(pair, size)
    isolated = not pair.engines if arguments.isolation is None else arguments.isolation == "process"
    extra = extras.extra_specs(pair, settings, arguments, isolated=isolated)
    only = options.only
    if only is not None and extra:
        names = [spec.name for spec in extra]
        if arguments.quick:
            only = (*only, *names)
        elif not set(names) & set(only):
            raise OptionError(
                f"--contestants leaves out all that --checkpoint and --peers add: name {', '.join(names)} too"
            )
    specs = chosen_specs(pair, settings, only=only, without=options.without, add=options.add, extra=extra)
    return Plan(
        pair=pair,
        specs=tuple(specs),
        settings=settings,
        isolated=isolated,
        processes=options.processes,
        duration=arguments.duration,
        seed=arguments.seed,
        memory=not arguments.no_memory,
        sections=not arguments.quick or extras.asked(arguments),
        environment=environment(),
        command=command,
        threads=options.threads,
        arguments=arguments,
    )


def measured(plan: Plan, batches: Sequence[int], progress: Progress) -> tuple[Result, int]:
    """Measure each batch size, then what concerns all.

    Args:
        plan: what and how.
        batches: images a call, growing.
        progress: told where the work is.

    Returns:
        The result, and the exit code: of a batch size that failed or was interrupted, after others that were measured.

    Raises:
        MtlError: the first batch size failed.
        KeyboardInterrupt: nothing was measured yet.
    """
    from mtl_deploy.bench.machine.environment import after_warnings, snapshot
    from mtl_deploy.bench.results.result import Result
    from mtl_deploy.bench.sections import registry as extras
    from mtl_deploy.bench.sections.base import RunContext, Sections, collect

    from .run import run

    reports: list[Report] = []
    warnings = extras.notes(plan.pair, plan.arguments)
    before = snapshot()
    code = 0
    for size in batches:
        try:
            report, interrupted = run(plan, size, progress)
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
    if plan.sections and not code:
        context = RunContext(plan, reports, progress)
        try:
            sections = collect(
                {key: (words, partial(work, context)) for key, (words, work) in extras.RUN_SECTIONS.items()}
            )
        except DeviceLostError as error:
            warnings.append(str(error))
            code = error.exit_code
        if sections.interrupted:
            warnings.append("interrupted before its time")
            code = INTERRUPTED
    after = snapshot()
    return Result(plan, reports, sections, [*warnings, *after_warnings(before, after)], before, after), code


def _deliver(result: Result, arguments: argparse.Namespace) -> None:
    """Write the files that were asked for, and print the table, or the document where it was asked for."""
    from mtl_deploy.bench.results.csv_samples import csv_samples
    from mtl_deploy.bench.results.output_files import write_whole

    if arguments.json != "-":
        sys.stdout.write(result.text())
    if (arguments.json, arguments.csv, arguments.report) == (None, None, None):
        return
    document: dict[str, Any] = result.to_dict()
    text = json.dumps(document, ensure_ascii=False) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
    if arguments.json not in (None, "-"):
        write_whole("--json", arguments.json, text, force=arguments.force)
    if arguments.csv is not None:
        write_whole("--csv", arguments.csv, csv_samples(document), force=arguments.force)
    if arguments.report is not None:
        from mtl_deploy.bench.html.page import render

        write_whole("--report", arguments.report, render(document), force=arguments.force)
