"""What pages are made of: escaped elements, and figures that know where in the result they stand."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_TAG = re.compile(r"<[^>]*>")


class Markup(str):
    """Text that is HTML already; any other text is escaped where it enters an element."""

    __slots__ = ()


class At:
    """A value of a result, with its JSON pointer (RFC 6901). What is missing reads as None, so that old results render too.

    Args:
        value: the value.
        path: its pointer.
    """

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self.path = path

    def __getitem__(self, key: str | int) -> At:
        token = str(key).replace("~", "~0").replace("/", "~1")
        try:
            found = self.value[key]
        except (KeyError, IndexError, TypeError):
            found = None
        return At(found, f"{self.path}/{token}")

    def __bool__(self) -> bool:
        return self.value is not None and self.value not in ({}, [], "")

    def __iter__(self) -> Iterator[At]:
        return (self[i] for i in range(len(self.value or ())))

    def items(self) -> list[tuple[str, At]]:
        """Return a mapping's keys and values, in its order; none where it is missing."""
        return [(key, self[key]) for key in self.value] if isinstance(self.value, Mapping) else []

    def values(self) -> list[At]:
        """Return a mapping's values, in its order."""
        return [at for _, at in self.items()]

    def text(self, default: str = "") -> str:
        """Return the value as text."""
        return default if self.value is None else str(self.value)

    def number(self) -> float:
        """Return the value as a number; NaN where it is none."""
        value = self.value
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan

    def numbers(self) -> tuple[float, float, float]:
        """Return an interval's value and ends; NaN where it is missing."""
        return self["value"].number(), self["low"].number(), self["high"].number()


def significant(value: float, digits: int = 3) -> str:
    """Write a number with some significant digits, without an exponent; digits before the point are never dropped."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        places -= 1  # 9.996 is 10.0
    return f"{value:,.{max(0, places)}f}" if abs(value) >= 10_000 else f"{value:.{max(0, places)}f}"


class Show(NamedTuple):
    """How a kind of figure is written: in which unit, as multiples of the result's, and how."""

    scale: float
    write: Callable[[float], str]
    unit: str = ""


SHOWS = {
    "number": Show(1, significant),
    "plain": Show(1, lambda value: f"{value:g}" if isinstance(value, float) else str(value)),
    "count": Show(1, lambda value: f"{value:,.0f}"),
    "ratio": Show(1, lambda value: f"{value:.2f}" if abs(value) < 100 else significant(value)),
    "percent": Show(100, lambda value: f"{value:.1f}", "\u202f%"),
    "points": Show(100, lambda value: f"{value:+.2f}"),
    "share": Show(100, lambda value: f"{value:.2f}"),
    "signed": Show(1, lambda value: ("+" if value >= 0 else "") + significant(value)),
    "error": Show(1, lambda value: f"{value:.2e}" if 0 < abs(value) < 1e-3 else significant(value)),
    "MB": Show(1e-6, significant),
    "M": Show(1e-6, significant),
    "G": Show(1e-9, significant),
}
"""By name: the kinds of figures. A page's element names its kind in ``data-show``."""


def shown(value: Any, show: str = "number") -> str:
    """Write a figure as people read it."""
    scale, write, unit = SHOWS[show]
    return write(value * scale if scale != 1 else value) + unit


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
        return tag("span", str(value))
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
            tag("th", tag("div", row[0], class_="name"), scope="row"),
            *(tag("td", "" if cell is None else cell) for cell in row[1:]),
        )
        for row in rows
    ]
    inner = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", *body))
    label = html.unescape(_TAG.sub("", caption)) if isinstance(caption, Markup) else caption
    return tag("div", inner, class_="scroll", role="region", tabindex="0", aria_label=label)


def paragraph(*children: object, class_: str | None = None) -> Markup:
    """Return a paragraph."""
    return tag("p", *children, class_=class_)


def bullets(texts: Sequence[object], class_: str | None = None) -> Markup | None:
    """Return a list; None of nothing."""
    return tag("ul", *(tag("li", text) for text in texts), class_=class_) if texts else None


def names_of(document: At) -> dict[str, str]:
    """Return what people call the contestants, by name."""
    return {name: one["title"].text(name) for name, one in document["contestants"].items()}


def slots(document: At) -> dict[str, int]:
    """Return each contestant's place in the palette, the same in every plot."""
    return {name: place for place, (name, _) in enumerate(document["contestants"].items())}


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
