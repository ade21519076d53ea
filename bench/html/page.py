"""The report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_deploy.bench.results.output_files import check_targets, write_whole
from mtl_deploy.bench.results.result_file import read_result
from mtl_deploy.runtime.console.command import parser, run_command

from . import comparison as html_comparison
from . import costs as html_costs
from . import environment as html_environment
from . import load as html_load
from . import quality as html_quality
from . import scaling as html_scaling
from .elements import At, Markup, figure, join, tag
from .style import style

_DESCRIPTION = """\
Write the report of a result: one HTML file, readable on a phone, in light and dark and on paper, that needs no network."""

_EPILOG = """\
examples:
  mtl-bench model.mtl --json result.json
  mtl-bench report result.json -o report.html

exit codes: 0 done; 2 a file that is no result, or a report that cannot be written."""

_SECTIONS: tuple[tuple[str, str, Callable[[At], list[object]]], ...] = (
    ("comparison", "Comparison", html_comparison.comparison),
    ("latency", "Latency", html_comparison.latency),
    ("throughput", "Throughput over the batch", html_comparison.throughput),
    ("where", "Where the time goes", html_costs.where),
    ("break-even", "Break-even", html_scaling.break_even),
    ("scaling", "Scaling", html_scaling.scaling),
    ("load", "Latency under load", html_load.open_loop),
    ("cold-start", "Cold start", html_load.cold_start),
    ("memory", "Memory and size", html_costs.memory),
    ("energy", "Energy", html_costs.energy),
    ("engine-timings", "Inside the engines", html_load.engine_timings),
    ("accuracy", "Accuracy", html_quality.accuracy),
    ("verification", "Verification", html_quality.verification),
    ("agreement", "Agreement", html_quality.agreement),
    ("contestants", "Contestants", html_environment.contestants),
    ("excluded", "Left out", html_quality.excluded),
    ("environment", "Environment", html_environment.environment),
    ("settings", "Settings", html_environment.settings),
    ("command", "Measure it again", html_environment.command),
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(document: Mapping[str, Any]) -> str:
    """Return the report.

    Every figure on it stands in the document: an element with ``data-path`` (a JSON pointer), ``data-show`` (how it is written)
    and its value in full. Sections whose data are missing are left out.

    Args:
        document: what ``mtl-bench --json`` wrote; see docs/benchmarking.md.

    Returns:
        an HTML document.
    """
    at = At(document)
    sections = [(key, title, content) for key, title, make in _SECTIONS if (content := make(at))]
    name = at["bundle"]["name"].text(at["bundle"]["path"].text())
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("title", f"{name}: mtl-bench"),
        tag("style", Markup(style())),
    )
    contents = tag(
        "nav",
        tag("ul", *(tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in sections)),
        aria_label="contents",
    )
    top = tag(
        "header",
        tag("p", tag("strong", name), join([" \u00b7 mtl-bench"]), _date(at), class_="kicker"),
        *_answers(at),
        html_environment.warnings(at),
        html_comparison.tiles(at),
        html_environment.facts(at),
        contents,
    )
    main_part = tag("main", *(_section(*section) for section in sections), id="main")
    skip = tag("a", "Skip to the figures", href="#main", class_="skip")
    body = tag("body", skip, top, main_part, _foot(at))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def write_report(document: Mapping[str, Any], file: Path, *, force: bool) -> None:
    """Write the report, whole or not at all.

    Args:
        document: see :func:`render`.
        file: where to.
        force: replace a file that is there.

    Raises:
        OptionError: it cannot be written there.
    """
    write_whole("--output", str(file), render(document), force=force)


def _section(key: str, title: str, content: list[object]) -> Markup:
    return tag("section", tag("h2", title, id=f"{key}-title"), *content, id=key, aria_labelledby=f"{key}-title")


def _answers(at: At) -> list[Markup]:
    """Return the answer, large; of several batches the first one's, and the others' below."""
    batches = list(at["batches"])
    if len(batches) < 2:
        return [tag("h1", at["answer"].text("No contestant was compared."))]
    first, *others = (
        join([tag("strong", "Batch ", figure(one["batch"], "count"), ": "), one["answer"].text()]) for one in batches
    )
    return [tag("h1", first), tag("ul", *(tag("li", other) for other in others), class_="answers")]


def _date(at: At) -> Markup | None:
    found = html_environment.date(at)
    return None if found is None else join([" \u00b7 ", found])


def _foot(at: At) -> Markup:
    version = at["environment"]["mtl_deploy"]
    words = [
        "Written from a result of mtl-bench",
        f" {version.text()}" if version else "",
        " (schema ",
        at["schema_version"].text(),
        ")",
    ]
    return tag("footer", tag("p", *words, _date(at), "."))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-bench report`` and return its exit code."""
    return run_command(lambda: _report(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-bench report", _DESCRIPTION, _EPILOG)
    made.add_argument("result", type=Path, metavar="RESULT.json", help="what mtl-bench --json wrote")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: RESULT.html beside it)")
    made.add_argument("-f", "--force", action="store_true", help="replace a file that exists")
    return made


def _report(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output or arguments.result.with_suffix(".html")
    check_targets({"--output": str(output)}, force=arguments.force, inputs=[arguments.result])
    write_report(read_result(arguments.result), output, force=arguments.force)
    print(output)  # noqa: T201
    return 0
