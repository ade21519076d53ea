"""What pages are made of: escaped elements, and figures that know where in the result they stand."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.kinds import shown

from .prose import prose

_TAG = re.compile(r"<[^>]*>")


class Markup(str):
    """Text that is HTML already; any other text is escaped where it enters an element."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: the element's.
        children: put in one after the other; all but :class:`Markup` is escaped, None is left out.
        attributes: a trailing underscore is dropped, the others become hyphens; None and False are left out, True has no value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        parts.append(word if value is True else f'{word}="{html.escape(str(value), quote=True)}"')
    return Markup(f"<{' '.join(parts)}>{join(children)}</{name}>")


def text(child: object) -> object:
    """Return what is text as markup whose lines end where people would end them; anything else as it is."""
    return Markup(prose(child)) if isinstance(child, str) and not isinstance(child, Markup) else child


def join(children: Sequence[object] | Iterator[object], separator: str = "") -> Markup:
    """Return children one after the other, escaped."""
    texts = (one if isinstance(one, Markup) else html.escape(str(one)) for one in children if one is not None)
    return Markup(separator.join(texts))


def figure(at: At, show: str = "number") -> Markup:
    """Return a figure: rounded for people, whole for programs, with its place in the result."""
    value = at.value
    if value is None:
        return tag("span", "n/a", class_="na")
    if isinstance(value, Mapping) and "value" in value:
        return interval(at, show)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return tag("span", text(str(value)))
    return tag("data", shown(value, show), value=repr(value), data_path=at.path, data_show=show)


def svg_figure(at: At, show: str = "number") -> dict[str, object]:
    """Return the attributes that say in an SVG's text what :func:`figure` says in HTML."""
    return {"data_value": repr(at.value), "data_path": at.path, "data_show": show}


def ends(at: At, show: str = "number") -> Markup:
    """Return an interval's ends; nothing where it is missing."""
    if not at:
        return Markup("")
    return tag("span", figure(at["low"], show), " to ", figure(at["high"], show), class_="ci")


def interval(at: At, show: str = "number") -> Markup:
    """Return an interval: its value, and its ends smaller."""
    if not at:
        return tag("span", "n/a", class_="na")
    return join([figure(at["value"], show), " ", ends(at, show)])


def table(caption: str, columns: Sequence[object], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table that scrolls in its own frame; each row's first cell is its header."""
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [
        tag(
            "tr",
            tag("th", tag("div", text(row[0]), class_="name"), scope="row"),
            *(tag("td", "" if cell is None else text(cell)) for cell in row[1:]),
        )
        for row in rows
    ]
    inner = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", *body))
    label = html.unescape(_TAG.sub("", caption)) if isinstance(caption, Markup) else caption
    return tag("div", inner, class_="scroll", role="region", tabindex="0", aria_label=label)


def paragraph(*children: object, class_: str | None = None) -> Markup:
    """Return a paragraph."""
    return tag("p", *map(text, children), class_=class_)


def bullets(texts: Sequence[object], class_: str | None = None) -> Markup | None:
    """Return a list; None of nothing."""
    return tag("ul", *(tag("li", text(one)) for one in texts), class_=class_) if texts else None


def by_batch(document: At, section: Callable[[At], Sequence[object] | None]) -> list[object]:
    """Return a section's content for each batch; with headings where there are several, and nothing where there is none."""
    batches = list(document["batches"])
    found: list[object] = []
    for batch in batches:
        content = section(batch)
        if not content:
            continue
        if len(batches) > 1:
            found.append(tag("h3", "Batch ", figure(batch["batch"], "count")))
        found += content
    return found
