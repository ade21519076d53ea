"""``mtl-bench``: what sharing a backbone buys, here, on this machine."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.console.command import Progress, run_command
from mtl_deploy.runtime.console.subcommands import dispatch
from mtl_deploy.runtime.files.text import as_unicode

from . import compare_cli, report_cli
from .options import add_operand, options_parser, read_options

if TYPE_CHECKING:
    from mtl_deploy.bench.results.report import Result

    from .options import OutputOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench``, ``mtl-bench compare`` or ``mtl-bench report`` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    subcommands = {"compare": compare_cli.subcommand(), "report": report_cli.subcommand()}
    return run_command(
        lambda: dispatch(given, options_parser(), add_operand, lambda read: _bench(read, given), subcommands)
    )


def _bench(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    if arguments.record:
        from .record import record

        return record(arguments, options_parser().parse_args([]))
    options = read_options(arguments)
    from .planning import planned
    from .whole import measure_all

    progress = Progress(quiet=options.quiet)
    with planned(options, shlex.join(["mtl-bench", *given]), progress) as plan:
        if options.recipe is not None:
            from .recipe import ci_plan

            plan = ci_plan(plan, progress, lambda line: sys.stderr.write(f"recipe {options.recipe}: {line}\n"))
        result, code = measure_all(plan, progress)
    _deliver(result, options.output)
    return code


def _deliver(result: Result, output: OutputOptions) -> None:
    """Print the text, or the document where it was asked for, and write every file that was asked for and can be written."""
    from mtl_deploy.bench.results.csv_samples import csv_samples
    from mtl_deploy.bench.results.document import document_of
    from mtl_deploy.bench.results.output_files import write_each
    from mtl_deploy.bench.terminal.text import render as render_text

    document: dict[str, Any] = document_of(result)

    def page() -> str:
        from mtl_deploy.bench.html.page import render as render_page

        return render_page(document)

    def as_json() -> str:
        return as_unicode(json.dumps(document, ensure_ascii=False), json=True) + "\n"

    made: list[tuple[str, str | None, Callable[[], str]]] = [
        ("--json", None if output.json == "-" else output.json, as_json),
        ("--csv", output.csv, lambda: csv_samples(document)),
        ("--report", output.report, page),
    ]
    try:
        write_each({option: (file, make) for option, file, make in made if file is not None}, force=output.force)
    finally:  # last: its reader may go away
        sys.stdout.write(as_json() if output.json == "-" else render_text(document, details=output.details))
