"""Blocks as markup: what a terminal prints as text, with the figures' places in the result, and plots."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.bench.blocks.blocks import Block, Cell, Ends, Estimate, Figure, Name, Phrase, Sentence, Table
from mtl_deploy.bench.html.svg.canvas import key
from mtl_deploy.bench.html.svg.plots import draw

from .elements import Markup, ends, figure, interval, join, paragraph, table, tag


def rendered(blocks: Sequence[Block]) -> list[object]:
    """Return the markup of each block that a page shows."""
    return [made for block in blocks if (made := _block(block)) is not None]


def _block(block: Block) -> Markup | None:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Sentence):
        return None if block.only == "terminal" else paragraph(*map(_cell, block.parts), class_=block.style)
    return draw(block)


def _table(block: Table) -> Markup:
    kept = [place for place, column in enumerate(block.columns) if column.only != "terminal"]
    titles = [block.columns[place].title for place in kept]
    return table(block.caption, titles, [[_cell(row[place]) for place in kept] for row in block.rows])


def _cell(cell: Cell) -> object:
    if isinstance(cell, Phrase):
        return join(map(_cell, cell.parts))
    if isinstance(cell, Name):
        return key(cell.text, cell.slot, line=cell.line)
    if isinstance(cell, Ends):
        return ends(cell.at, cell.show)
    if isinstance(cell, Estimate):
        return interval(cell.at, cell.show)
    if isinstance(cell, Figure):
        return figure(cell.at, cell.show)
    return tag("span", cell, class_="na") if cell == "n/a" else cell
