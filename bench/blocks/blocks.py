"""Blocks: what a section of a result is shown with, described once for pages and terminals.

A figure is a place in the result (:class:`~mtl_deploy.bench.blocks.at.At`) and a kind of
:data:`~mtl_deploy.bench.blocks.kinds.SHOWS`, so that whoever renders it can name its JSON pointer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .at import At
from .plots import Plot

Only = Literal["page", "terminal"] | None
"""Where something is shown; None: both."""


@dataclass(frozen=True)
class Figure:
    """A number of the result."""

    at: At
    show: str = "number"


@dataclass(frozen=True)
class Estimate:
    """An interval of the result: its value, and its ends beside it."""

    at: At
    show: str = "number"


@dataclass(frozen=True)
class Ends:
    """An interval of the result: its ends alone."""

    at: At
    show: str = "number"


@dataclass(frozen=True)
class Name:
    """A contestant, or a part, with its place in the palette."""

    text: str
    slot: int
    line: bool = False


Piece: TypeAlias = "str | Figure | Ends"
"""A part of a sentence."""


@dataclass(frozen=True)
class Phrase:
    """Text and figures in one cell."""

    parts: Sequence[Piece]


Cell: TypeAlias = "str | Figure | Estimate | Ends | Name | Phrase"


@dataclass(frozen=True)
class Column:
    """A table's column.

    Attributes:
        title: its heading.
        ends: of estimates: the heading of the terminal's column for their ends; None: the terminal shows none.
        only: where it is shown.
    """

    title: str
    ends: str | None = None
    only: Only = None


@dataclass(frozen=True)
class Table:
    """A table; a row's first cell names it.

    Attributes:
        caption: on a page, above it.
        columns: from the left.
        rows: a cell for each column.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Sentence:
    """Text with figures.

    Attributes:
        parts: one after the other.
        style: on a page: ``lead``, ``note`` or ``bad``; None: as other text.
        only: where it is shown.
    """

    parts: Sequence[Piece]
    style: str | None = None
    only: Only = None


Block: TypeAlias = "Table | Sentence | Plot"


class Roster:
    """The contestants of a result, with their titles and their places in the palette, the same in every plot.

    Args:
        document: the whole result.
    """

    def __init__(self, document: At) -> None:
        contestants = document["contestants"].items()
        self.titles: Mapping[str, str] = {name: one["title"].text(name) for name, one in contestants}
        self.slots: Mapping[str, int] = {name: place for place, (name, _) in enumerate(contestants)}

    def title(self, name: str) -> str:
        """Return what people call a contestant."""
        return self.titles.get(name, name)

    def slot(self, name: str) -> int:
        """Return its place in the palette."""
        return self.slots.get(name, 0)

    def name(self, name: str, *, line: bool = False) -> Name:
        """Return a cell that names it.

        Args:
            name: of the contestant.
            line: whether a plot beside the table shows it as a line.
        """
        return Name(self.title(name), self.slot(name), line)
