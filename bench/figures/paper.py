"""A drawing of a fixed width on white paper: what a page leaves to its style sheet stands in the drawing itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.kinds import shown
from mtl_deploy.bench.html.elements import Markup, join, tag
from mtl_deploy.bench.html.style import LIGHT, SLOTS
from mtl_deploy.bench.html.svg.canvas import Canvas, Entry, dash, mark_path

WIDTH_MM = 140.0
"""The width of a drawing: about the width of the text on A4 paper."""
_MM = 25.4 / 96  # of a unit: CSS's pixel, so that the 12 of the font's size are 9 pt
_WIDTH = WIDTH_MM / _MM
_FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_SIZE = 12  # units
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LEFT, _LEFT_OF_LINES, _RIGHT, _AROUND = 10.0, 48.0, 20.0, 4.0
_ROW, _GAP = 19, 20  # of a legend: a row's height, and between two entries
_LINES: dict[str, dict[str, object]] = {
    "grid": {"stroke": LIGHT["grid"], "stroke_width": 1},
    "base": {"stroke": LIGHT["rule"], "stroke_width": 1},
    "reference": {"stroke": LIGHT["ink"], "stroke_width": 1.5, "stroke_dasharray": "4 3"},
    "whisker": {"stroke_width": 2, "stroke_linecap": "round"},
}
_TEXTS: dict[str, dict[str, object]] = {
    "tick": {"fill": LIGHT["soft"]},
    "axis": {"fill": LIGHT["soft"]},
    "strong": {"font_weight": "bold"},
    "on": {"fill": LIGHT["paper"], "font_weight": "bold"},
}
_WIDTHS = {"narrow": ("fijlrtI.,:;'|!()[] ", 0.31), "wide": ("mwMWG%", 0.87)}
"""Widths of characters in Helvetica, as shares of the font's size, rounded up; of any other: 0.62."""


class Paper(Canvas):
    """A drawing under construction, for paper."""

    narrowest = int(_WIDTH - _LEFT - _RIGHT)
    longest = 44

    @property
    def left(self) -> float:
        """Where the plot begins, in units."""
        return _LEFT_OF_LINES if self.lines else _LEFT

    def x(self, share: float) -> float:
        """Return where a share of the plot's width lies, in units."""
        return round(self.left + share * (_WIDTH - self.left - _RIGHT), 2)

    def number(self, at: At, show: str) -> object:
        """Return a figure as a part of a text."""
        return shown(at.value, show)

    def text(
        self,
        x: float,
        y: float,
        text: object,
        *,
        class_: str | None = None,
        anchor: str | None = None,
        dx: float | None = None,
    ) -> None:
        """Write text; what stands in the plot is free of the grid and of curves: white is behind it, or around its letters."""
        where = self.x(x) + (dx or 0)
        if class_ in (None, "strong") and not self.lines:
            wide = width(str(text), bold=class_ is not None)
            begin = where - {None: 0, "middle": wide / 2, "end": wide}[anchor]
            place = {"x": round(begin - 1, 2), "y": round(y - 11, 2), "width": round(wide + 2, 2), "height": 14}
            self.add(tag("rect", **place, fill=LIGHT["paper"]))
        elif class_ is None:
            halo = {"stroke": LIGHT["paper"], "stroke_width": 4, "stroke_linejoin": "round", "aria_hidden": "true"}
            self.add(_text(where, y, text, anchor=anchor, **halo))
        self.add(_text(where, y, text, anchor=anchor, **_TEXTS.get(class_ or "", {})))

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, slot: int | None = None) -> None:
        """Draw a straight line."""
        look = _LINES[kind] | ({} if slot is None else {"stroke": colour(slot)})
        self.add(tag("line", x1=self.x(x1), y1=y1, x2=self.x(x2), y2=y2, **look))

    def bar(self, x1: float, x2: float, y: float, height: float, slot: int) -> None:
        """Draw a part of a bar."""
        where = {"x": self.x(x1), "width": round(max(0.0, self.x(x2) - self.x(x1)), 2), "y": y, "height": height}
        self.add(tag("rect", **where, fill=colour(slot), stroke=LIGHT["paper"], stroke_width=1.5))

    def mark(self, x: float, y: float, slot: int, *, hollow: bool = False, small: bool = False) -> None:
        """Draw the palette's mark."""
        self.add(_shape(self.x(x), y, mark_path(slot), slot, hollow=hollow, scale=0.75 if small else 1))

    def shape(self, x: float, y: float, path: str, slot: int) -> None:
        """Draw a hollow shape around a point."""
        self.add(_shape(self.x(x), y, path, slot, hollow=True))

    def curve(self, points: Sequence[tuple[float, float]], slot: int) -> None:
        """Draw a line through points."""
        if len(points) > 1:
            look = {
                "stroke": colour(slot),
                "stroke_width": 2.25,
                "stroke_linejoin": "round",
                "stroke_dasharray": dash(slot),
            }
            self.add(tag("path", d=self._through(points), fill="none", **look))

    def area(self, points: Sequence[tuple[float, float]], slot: int) -> None:
        """Fill a shape."""
        look = {"fill": colour(slot), "fill_opacity": 0.3, "stroke": colour(slot), "stroke_width": 1.25}
        self.add(tag("path", d=f"{self._through(points)}Z", **look))

    def _through(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(x):.2f} {y:.2f}" for x, y in points)

    def figure(self, title: str, words: str, *, caption: str | None = None) -> Markup:
        """Return the drawing as a file of its own.

        Args:
            title: what it shows; not drawn, since a figure in a text has a caption there.
            words: its figures, as text; what the caption may say.
            caption: how to read it; likewise.
        """
        legend = list(_legend(self.entries))
        above = _AROUND + (_ROW * (1 + max(row for _, row in legend)) + 6 if legend else 0)
        height = round(above + self.bottom + self.below + _AROUND, 2)
        drawing = tag(
            "svg",
            tag("title", title),
            tag("desc", join([words, caption], " ")),
            tag("rect", width=round(_WIDTH, 2), height=height, fill=LIGHT["paper"]),
            *(part for part, _ in legend),
            tag("g", *self.parts, transform=f"translate(0 {above:g})"),
            xmlns="http://www.w3.org/2000/svg",
            width=f"{WIDTH_MM:g}mm",
            height=f"{height * _MM:.2f}mm",
            viewBox=f"0 0 {_WIDTH:.2f} {height:g}",
            font_family=_FONTS,
            font_size=_SIZE,
            fill=LIGHT["ink"],
        )
        return Markup(_NO_XML.sub("\ufffd", f'<?xml version="1.0" encoding="UTF-8"?>\n{drawing}\n'))


def colour(slot: int) -> str:
    """Return the palette's colour on white paper."""
    return LIGHT[f"c{slot % SLOTS}"]


def width(text: str, *, bold: bool = False) -> float:
    """Return about how wide a text is, in units; rather too much than too little."""
    shares = (next((share for characters, share in _WIDTHS.values() if one in characters), 0.62) for one in text)
    return _SIZE * sum(shares) * (1.08 if bold else 1)


def _text(x: float, y: float, text: object, *, anchor: str | None = None, **look: object) -> Markup:
    return tag("text", text, x=round(x, 2), y=round(y, 2), text_anchor=anchor, **look)


def _shape(x: float, y: float, path: str, slot: int, *, hollow: bool = False, scale: float = 1) -> Markup:
    look = {"fill": LIGHT["paper"], "stroke": colour(slot), "stroke_width": 2} if hollow else {"fill": colour(slot)}
    scaled = f" scale({scale:g})" if scale != 1 else ""
    return tag("path", d=path, transform=f"translate({x:g} {y:g}){scaled}", **look)


def _legend(entries: Sequence[Entry]) -> Iterator[tuple[Markup, int]]:
    """Yield a legend's parts, with the row in which each stands."""
    x, row = _LEFT, 0
    for entry in entries:
        long = 34 if entry.line else 14
        wide = long + 7 + width(entry.name)
        if x > _LEFT and x + wide > _WIDTH - _RIGHT:
            x, row = _LEFT, row + 1
        middle = _AROUND + _ROW * row + 9
        if not entry.line:
            yield tag("rect", x=round(x, 2), y=middle - 7, width=14, height=14, fill=colour(entry.slot)), row
        elif entry.joined:
            look = {"stroke": colour(entry.slot), "stroke_width": 2.25, "stroke_dasharray": dash(entry.slot)}
            yield tag("line", x1=round(x, 2), y1=middle, x2=round(x + 34, 2), y2=middle, **look), row
        if entry.line and entry.marks:
            yield _shape(round(x + 17, 2), middle, mark_path(entry.slot), entry.slot), row
        yield _text(x + long + 7, middle + 4, entry.name), row
        x += wide + _GAP
