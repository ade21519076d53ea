"""Blocks as plain text: tables and sentences, without plots."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.runtime.console.command import table

from .blocks import Block, Cell, Ends, Estimate, Figure, Name, Phrase, Sentence, Table
from .kinds import printed

MISSING = "n/a"


def render(blocks: Sequence[Block]) -> list[str]:
    """Return the text of each block that a terminal shows."""
    found = []
    for block in blocks:
        if isinstance(block, Table):
            found.append(_table(block))
        elif isinstance(block, Sentence) and block.only != "page":
            found.append("".join(map(_cell, block.parts)))
    return found


def _table(block: Table) -> str:
    kept = [place for place, column in enumerate(block.columns) if column.only != "page"]
    titles: list[str] = []
    for place in kept:
        column = block.columns[place]
        titles += [column.title] if column.ends is None else [column.title, column.ends]
    rows: list[list[str]] = []
    for row in block.rows:
        cells: list[str] = []
        for place in kept:
            cell = row[place]
            cells.append(_cell(cell))
            if block.columns[place].ends is not None:
                cells.append(_cell(Ends(cell.at, cell.show)) if isinstance(cell, Estimate) and cell.at else "")
        rows.append(cells)
    return table(titles, rows)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Phrase):
        return "".join(map(_cell, cell.parts))
    if isinstance(cell, Name):
        return cell.text
    if isinstance(cell, Ends):
        return " to ".join(_number(cell.at[end].value, cell.show) for end in ("low", "high")) if cell.at else MISSING
    if isinstance(cell, Estimate):
        return _number(cell.at["value"].value, cell.show)
    if isinstance(cell, Figure):
        return _number(cell.at.value, cell.show)
    return cell


def _number(value: object, show: str) -> str:
    if value is None:
        return MISSING
    return printed(value, show) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
