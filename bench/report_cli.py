"""``mtl-bench report``: the page of a result, and its plots as files of their own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_deploy.bench.results.output_files import check_targets, write_whole
from mtl_deploy.runtime.console.command import parser
from mtl_deploy.runtime.console.subcommands import Subcommand
from mtl_deploy.runtime.errors import OptionError

_DESCRIPTION = """\
Write the report of a result: one HTML file, readable on a phone, in light and dark and on paper, that needs no network. With
--figures its plots, each as a file for a text: SVG, 140 mm wide, and PNG at 300 dpi if cairosvg is installed."""

_EPILOG = """\
examples:
  mtl-bench model.mtl --json result.json
  mtl-bench report result.json -o report.html
  mtl-bench report result.json --figures figures/

exit codes: 0 done; 2 a file that is no result, or a report that cannot be written."""


def subcommand() -> Subcommand:
    """Return what ``mtl-bench report`` reads and does."""
    made = parser("mtl-bench report", _DESCRIPTION, _EPILOG)
    _add_arguments(made)
    return Subcommand(made, _report, "make a page of a result, or files of its plots")


def _add_arguments(made: argparse.ArgumentParser) -> None:
    made.add_argument("result", type=Path, metavar="RESULT.json", help="what mtl-bench --json wrote")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: RESULT.html beside it)")
    made.add_argument(
        "--figures", type=Path, metavar="DIR", help="write the plots there; the page only with --output too"
    )
    made.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    made.add_argument("-q", "--quiet", action="store_true", help="do not print the names of the files")


def _report(arguments: argparse.Namespace) -> int:
    from mtl_deploy.bench.results.result_file import read_result

    page: Path | None = arguments.output
    if page is None and arguments.figures is None:
        page = arguments.result.with_suffix(".html")
    if page is not None:
        check_targets({"--output": str(page)}, force=arguments.force, inputs=[arguments.result])
    document = read_result(arguments.result)
    written = [] if arguments.figures is None else _figures(document, arguments.figures, force=arguments.force)
    if page is not None:
        from mtl_deploy.bench.html.page import render

        write_whole("--output", str(page), render(document), force=arguments.force)
        written.append(str(page))
    if not arguments.quiet:
        for file in written:
            print(file)  # noqa: T201
    return 0


def _figures(document: Mapping[str, Any], folder: Path, *, force: bool) -> list[str]:
    """Write the plots, and return their files."""
    from mtl_deploy.bench.figures.plots import drawings
    from mtl_deploy.bench.figures.png import missing, png

    drawn = drawings(document)
    if not drawn:
        raise OptionError(f"--figures {folder}: the result has nothing to plot")
    reason = missing()
    suffixes = [".svg"] if reason is not None else [".svg", ".png"]
    files = {(name, suffix): str(folder / f"{name}{suffix}") for name in drawn for suffix in suffixes}
    _make_folder(folder)
    for file in files.values():
        check_targets({"--figures": file}, force=force)
    for (name, suffix), file in files.items():
        write_whole("--figures", file, drawn[name] if suffix == ".svg" else png(drawn[name]), force=force)
    if reason is not None:
        sys.stderr.write(f"note: no PNG: {reason}\n")
    return list(files.values())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise OptionError(f"--figures {folder}: a file; name a folder") from None
    except FileNotFoundError:
        raise OptionError(f"--figures {folder}: no such folder as {folder.parent}; make it first") from None
    except OSError as error:
        raise OptionError(f"--figures {folder}: {error.strerror or error}") from error
