"""A drawing that fits any width: places along the width are shares of it, those along the height pixels, so text never shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import Axis
from mtl_deploy.bench.blocks.kinds import shown
from mtl_deploy.bench.html.elements import Markup, join, svg_figure, tag
from mtl_deploy.bench.html.style import SLOTS

_WIDE = 1000  # units of a curve's own coordinates, stretched to the drawing's width
_DASHES = (None, "7 4", "2 3", "9 3 2 3", "12 5", "4 2", "1 3", "9 3 2 3 2 3")
_MARKS = (
    "M4.5 0A4.5 4.5 0 1 1 -4.5 0A4.5 4.5 0 1 1 4.5 0Z",  # circle
    "M-4 -4H4V4H-4Z",  # square
    "M0 -5.5L5 4H-5Z",  # triangle
    "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",  # diamond
    "M0 5.5L5 -4H-5Z",  # triangle, down
    "M-5 -1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",  # plus
    "M-5.5 -2H5.5V2H-5.5Z",  # bar
    "M-2 -5.5H2V5.5H-2Z",  # bar, upright
)


@dataclass(frozen=True)
class Entry:
    """What a legend says of one part or line.

    Attributes:
        name: of it.
        slot: its place in the palette.
        line: whether it is a line, with its dashes and its mark; else a square.
        joined: whether the line is drawn.
        marks: whether the mark is drawn.
    """

    name: str
    slot: int
    line: bool = False
    joined: bool = True
    marks: bool = True


class Canvas:
    """A drawing under construction, for a page.

    Args:
        height: of the plot, in pixels, without what stands below the axis.
        top: pixels above it.
        lines: whether it has a vertical axis, whose labels stand left of it.
    """

    narrowest = 300
    """Pixels that the plot may be wide."""
    longest = 30
    """Characters of a name that fit beside a figure."""

    def __init__(self, height: int, *, top: int = 6, lines: bool = False) -> None:
        self.height = height
        self.top = top
        self.lines = lines
        self.below = 0
        self.parts: list[Markup] = []
        self.entries: Sequence[Entry] = ()

    @property
    def bottom(self) -> int:
        """The pixel at which the plot ends."""
        return self.top + self.height

    def add(self, part: Markup) -> None:
        """Add an element."""
        self.parts.append(part)

    def x_axis(self, axis: Axis, title: str) -> None:
        """Draw a grid, ticks and a title below the plot."""
        for tick in axis.ticks:
            x = axis.place(tick)
            self.line(x, self.top, x, self.bottom, "grid")
            self.text(x, self.bottom + 16, axis.label(tick), class_="tick", anchor="middle")
        self.line(0, self.bottom, 1, self.bottom, "base")
        self.text(1, self.bottom + 33, title, class_="axis", anchor="end")
        self.below = 40

    def y_axis(self, axis: Axis, title: str) -> None:
        """Draw a grid, ticks and a title above the plot."""
        for tick in axis.ticks:
            y = self.y(axis, tick)
            self.line(0, y, 1, y, "grid")
            self.text(0, y + 4, axis.label(tick), class_="tick", anchor="end", dx=-8)
        self.text(0, self.top - 15, title, class_="axis", dx=-36)

    def y(self, axis: Axis, value: float) -> float:
        """Return a value's pixel on the vertical axis."""
        return round(self.bottom - self.height * axis.place(value), 2)

    def number(self, at: At, show: str) -> object:
        """Return a figure as a part of a text, with its place in the result."""
        return tag("tspan", shown(at.value, show), **svg_figure(at, show))

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
        """Write text; ``x`` is a share of the width."""
        where = {"x": percent(x), "y": round(y, 2), "dx": dx, "text_anchor": anchor, "class_": class_}
        self.add(tag("text", text, **where))

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, slot: int | None = None) -> None:
        """Draw a straight line.

        Args:
            x1: where it begins, as a share of the width.
            y1: the same in pixels.
            x2: where it ends.
            y2: the same in pixels.
            kind: ``grid``, ``base``, ``reference`` or ``whisker``.
            slot: of a whisker: its place in the palette.
        """
        class_ = kind if slot is None else f"{kind} {slot_class(slot)}"
        self.add(tag("line", x1=percent(x1), y1=y1, x2=percent(x2), y2=y2, class_=class_))

    def bar(self, x1: float, x2: float, y: float, height: float, slot: int) -> None:
        """Draw a part of a bar; its ends are shares of the width."""
        where = {"x": percent(x1), "width": percent(max(0.0, x2 - x1)), "y": y, "height": height}
        self.add(tag("rect", **where, class_=f"segment {slot_class(slot)}"))

    def mark(self, x: float, y: float, slot: int, *, hollow: bool = False, small: bool = False) -> None:
        """Draw the palette's mark."""
        self.add(mark(percent(x), y, slot, hollow=hollow, small=small))

    def shape(self, x: float, y: float, path: str, slot: int) -> None:
        """Draw a hollow shape around a point."""
        inner = tag("path", d=path, class_=f"hollow {slot_class(slot)}")
        self.add(tag("svg", inner, x=percent(x), y=y, overflow="visible"))

    def curve(self, points: Sequence[tuple[float, float]], slot: int) -> None:
        """Draw a line through points: shares of the width, and pixels."""
        if len(points) > 1:
            path = "M" + "L".join(f"{_WIDE * x:.1f} {y:.1f}" for x, y in points)
            self._stretched(tag("path", d=path, class_=f"stroke {slot_class(slot)}", stroke_dasharray=dash(slot)))

    def area(self, points: Sequence[tuple[float, float]], slot: int) -> None:
        """Fill a shape whose corners are shares of the width, and pixels."""
        path = "M" + "L".join(f"{_WIDE * x:.1f} {y:.1f}" for x, y in points) + "Z"
        self._stretched(tag("path", d=path, class_=f"area {slot_class(slot)}"))

    def legend(self, entries: Sequence[Entry]) -> None:
        """Put a legend above the drawing."""
        self.entries = entries

    def figure(self, title: str, words: str, *, caption: str | None = None) -> Markup:
        """Return the drawing.

        Args:
            title: what it shows.
            words: its figures, as text for those who do not see it.
            caption: below it.
        """
        named = (tag("title", title), tag("desc", words))
        drawing = tag("svg", *named, *self.parts, role="img", width="100%", height=self.bottom + self.below)
        plot = tag("div", drawing, class_="plot lines" if self.lines else "plot")
        made = tag("figure", plot, tag("figcaption", caption) if caption else None)
        return join([_legend(self.entries), made]) if self.entries else made

    def _stretched(self, shape: Markup) -> None:
        height = self.bottom
        box = {"viewBox": f"0 0 {_WIDE} {height}", "preserveAspectRatio": "none"}
        self.add(tag("svg", shape, x=0, y=0, width="100%", height=height, **box))


def percent(share: float) -> str:
    """Return a share of the width."""
    return f"{100 * share:.2f}%"


def slot_class(slot: int) -> str:
    """Return the class that gives the palette's colour."""
    return f"s{slot % SLOTS}"


def dash(slot: int) -> str | None:
    """Return the palette's dashes."""
    return _DASHES[slot % len(_DASHES)]


def mark_path(slot: int) -> str:
    """Return the outline of the palette's mark: a shape of its own for each colour, another one when colours are used again."""
    return _MARKS[(slot + slot // SLOTS) % len(_MARKS)]


def mark(x: object, y: object, slot: int, *, hollow: bool = False, small: bool = False) -> Markup:
    """Return the palette's mark."""
    kind = "hollow" if hollow else "fill"
    scale = "scale(.75)" if small else None
    return tag(
        "svg",
        tag("path", d=mark_path(slot), transform=scale, class_=f"{kind} {slot_class(slot)}"),
        x=x,
        y=y,
        overflow="visible",
    )


def swatch(slot: int, *, line: bool = False, joined: bool = True, marks: bool = True) -> Markup:
    """Return what a legend or a table's row shows of the palette: a square, or a line, its mark, or both."""
    if not line:
        square = tag("rect", width=14, height=14, rx=2, class_=f"fill {slot_class(slot)}")
        return tag("svg", square, width=14, height=14, aria_hidden="true")
    stroke = tag("path", d="M0 7H34", class_=f"stroke {slot_class(slot)}", stroke_dasharray=dash(slot))
    shapes = [stroke if joined else None, mark(17, 7, slot) if marks else None]
    return tag("svg", *shapes, width=34, height=14, aria_hidden="true")


def _legend(entries: Sequence[Entry]) -> Markup:
    """Return a legend of swatches and names."""
    shapes = [(swatch(one.slot, line=one.line, joined=one.joined, marks=one.marks), one.name) for one in entries]
    return tag("ul", *(tag("li", shape, tag("span", name)) for shape, name in shapes), class_="legend")


def key(name: object, slot: int, *, line: bool = False) -> Markup:
    """Return a name with its colour, for a table's row."""
    return tag("span", swatch(slot, line=line), name, class_="key long" if line else "key")
