"""``mtl-bench report``: the page of a result."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_deploy.bench.results.output_files import check_targets, write_whole
from mtl_deploy.runtime.console.command import parser
from mtl_deploy.runtime.console.subcommands import Subcommand

_DESCRIPTION = """\
Write the report of a result: one HTML file, readable on a phone, in light and dark and on paper, that needs no network."""

_EPILOG = """\
examples:
  mtl-bench model.mtl --json result.json
  mtl-bench report result.json -o report.html

exit codes: 0 done; 2 a file that is no result, or a report that cannot be written."""


def subcommand() -> Subcommand:
    """Return what ``mtl-bench report`` reads and does."""
    made = parser("mtl-bench report", _DESCRIPTION, _EPILOG)
    _add_arguments(made)
    return Subcommand(made, _report, "make a page of a result")


def _add_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("result", type=Path, metavar="RESULT.json", help="what mtl-bench --json wrote")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: RESULT.html beside it)")
    made.add_argument("-f", "--force", action="store_true", help="replace a file that exists")
    made.add_argument("-q", "--quiet", action="store_true", help="do not print the name of the file")


def _report(arguments: argparse.Namespace) -> int:
    from mtl_deploy.bench.html.page import render
    from mtl_deploy.bench.results.result_file import read_result

    output: Path = arguments.output or arguments.result.with_suffix(".html")
    check_targets({"--output": str(output)}, force=arguments.force, inputs=[arguments.result])
    write_whole("--output", str(output), render(read_result(arguments.result)), force=arguments.force)
    if not arguments.quiet:
        print(output)  # noqa: T201
    return 0
