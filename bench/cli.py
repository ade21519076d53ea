"""``mtl-bench``: what sharing a backbone buys, here, on this machine."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mtl_deploy.runtime.console.command import Progress, parser, run_command
from mtl_deploy.runtime.files.text import as_unicode

from . import compare_cli, report_cli
from .options import SUBCOMMANDS, add_options, bench_parser, read_options

if TYPE_CHECKING:
    from mtl_deploy.bench.results.result import Result

    from .options import OutputOptions


class _Subcommand(Protocol):
    HELP: str

    def main(self, arguments: Sequence[str] | None = None) -> int: ...

    def add_arguments(self, made: argparse.ArgumentParser) -> None: ...


_SUBCOMMANDS: Mapping[str, _Subcommand] = dict(zip(SUBCOMMANDS, (compare_cli, report_cli), strict=True))
_QUIET = ("-q", "--quiet")  # means the same before a subcommand as behind it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench``, ``mtl-bench compare`` or ``mtl-bench report`` and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    place = next((i for i, word in enumerate(given) if word not in _QUIET), len(given))
    subcommand = _SUBCOMMANDS.get(given[place]) if place < len(given) else None
    if subcommand is not None:
        return subcommand.main([*given[:place], *given[place + 1 :]])
    chosen = _completion_parser if any(word.startswith("--print-c") for word in given) else bench_parser
    return run_command(lambda: _bench(chosen().parse_args(given), given))


def _completion_parser() -> argparse.ArgumentParser:
    """Return what completion scripts are made from: the options, and the subcommands in the place of a bundle."""
    made = parser("mtl-bench", "", "")
    add_options(made)
    inner = made.add_subparsers()
    for name, module in _SUBCOMMANDS.items():
        module.add_arguments(inner.add_parser(name, help=module.HELP))
    return made


def _bench(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    options = read_options(arguments)
    from .planning import planned
    from .whole import measure_all

    progress = Progress(quiet=options.quiet)
    with planned(options, shlex.join(["mtl-bench", *given]), progress) as plan:
        result, code = measure_all(plan, progress)
    _deliver(result, options.output)
    return code


def _deliver(result: Result, output: OutputOptions) -> None:
    """Write the files that were asked for, and print the tables, or the document where it was asked for."""
    from mtl_deploy.bench.results.csv_samples import csv_samples
    from mtl_deploy.bench.results.document import document_of
    from mtl_deploy.bench.results.output_files import write_whole
    from mtl_deploy.bench.results.text import render as render_text

    document: dict[str, Any] = document_of(result)
    if output.json != "-":
        sys.stdout.write(render_text(document))
    if output.json is not None:
        text = as_unicode(json.dumps(document, ensure_ascii=False), json=True) + "\n"
        if output.json == "-":
            sys.stdout.write(text)
        else:
            write_whole("--json", output.json, text, force=output.force)
    if output.csv is not None:
        write_whole("--csv", output.csv, csv_samples(document), force=output.force)
    if output.report is not None:
        from mtl_deploy.bench.html.page import render as render_page

        write_whole("--report", output.report, render_page(document), force=output.force)
