"""The report: one HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.sections import registry
from mtl_deploy.bench.sections.base import BatchSection, RunSection

from . import comparison, environment, memory, quality
from .elements import Markup, by_batch, figure, join, tag, text
from .from_blocks import rendered
from .style import style

_Made = tuple[str, str, list[object]]
"""A section of the page: its id, its heading and its content."""

_FIRST: tuple[tuple[str, str, Callable[[At], list[object]]], ...] = (
    ("comparison", "Comparison", comparison.comparison),
    ("latency", "Latency", comparison.latency),
    ("throughput", "Throughput over the batch", comparison.throughput),
    ("memory", "Memory and size", memory.memory),
)
"""Before the sections of the registry."""

_LAST: tuple[tuple[str, str, Callable[[At], list[object]]], ...] = (
    ("accuracy", "Accuracy", quality.accuracy),
    ("verification", "Verification", quality.verification),
    ("agreement", "Agreement", quality.agreement),
    ("contestants", "Contestants", environment.contestants),
    ("excluded", "Left out", quality.excluded),
    ("environment", "Environment", environment.environment),
    ("settings", "Settings", environment.settings),
    ("command", "Measure it again", environment.command),
)
"""After them."""
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
    made = [*((key, title, make(at)) for key, title, make in _FIRST), *_sections(at)]
    made += [(key, title, make(at)) for key, title, make in _LAST]
    sections = [section for section in made if section[2]]
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
        environment.warnings(at),
        comparison.tiles(at),
        environment.facts(at),
        contents,
    )
    main_part = tag("main", *(_section(*section) for section in sections), id="main")
    skip = tag("a", "Skip to the figures", href="#main", class_="skip")
    body = tag("body", skip, top, main_part, _foot(at))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _sections(at: At) -> Iterator[_Made]:
    """Yield what the registry's sections show."""
    roster = Roster(at)
    for section in registry.SECTIONS:
        if isinstance(section, BatchSection):
            yield section.key, section.title, by_batch(at, partial(_of_batch, section, roster))
        elif isinstance(section, RunSection):
            found = at.down(section.place)
            yield section.key, section.title, rendered(section.blocks(found, roster)) if found else []


def _of_batch(section: BatchSection[Any], roster: Roster, batch: At) -> list[object]:
    found = batch.down(section.place)
    return rendered(section.blocks(found, batch, roster)) if found else []


def _section(key: str, title: str, content: list[object]) -> Markup:
    return tag("section", tag("h2", title, id=f"{key}-title"), *content, id=key, aria_labelledby=f"{key}-title")


def _answers(at: At) -> list[Markup]:
    """Return the answer, large; of several batches the first one's, and the others' below."""
    batches = list(at["batches"])
    if len(batches) < 2:
        return [tag("h1", text(at["answer"].text("No contestant was compared.")))]
    first, *others = (
        join([tag("strong", "Batch ", figure(one["batch"], "count"), ": "), text(one["answer"].text())])
        for one in batches
    )
    return [tag("h1", first), tag("ul", *(tag("li", other) for other in others), class_="answers")]


def _date(at: At) -> Markup | None:
    found = environment.date(at)
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
