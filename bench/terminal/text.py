"""A result as text for a terminal, made from its JSON document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mtl_deploy.bench.blocks import terminal
from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Piece, Roster, Sentence
from mtl_deploy.bench.blocks.kinds import counted
from mtl_deploy.bench.results.tables import contestants, gathered_warnings, throughputs
from mtl_deploy.bench.sections import registry
from mtl_deploy.runtime.console.visible import visible

from .sides import header, latency_line, memory_line, notes, sides


def render(document: Mapping[str, Any], *, details: bool = False) -> str:
    """Return the answer, the warnings that matter to it, the contestants' table, and one line for each other part.

    Args:
        document: what ``mtl-bench --json`` writes; see docs/benchmarking.md.
        details: every table and every warning in place of the lines.
    """
    at = At(document)
    return "\n\n".join([*_top(at, details=details), *(_details(at) if details else _brief(at))]) + "\n"


def _top(at: At, *, details: bool) -> Iterator[str]:
    """Yield the answer, and what casts doubt on it."""
    yield at["answer"].text()
    shown = gathered_warnings(at, "warnings" if details else "answer_warnings")
    lines = [f"warning: {text}" for text in shown]
    more = [] if details else [text for text in gathered_warnings(at, "warnings") if text not in shown]
    if more:
        lines.append(f"{counted(len(more), 'warning')} about other parts: --details")
    if lines:
        yield "\n".join(lines)


def _brief(at: At) -> list[str]:
    roster, batches = Roster(at), list(at["batches"])
    texts: list[str] = []
    for batch in batches:
        texts += terminal.render([header(at, batch), *contestants(at, batch, roster)])
    if len(batches) > 1:
        texts += terminal.render(throughputs(at, batches, roster))
    lines = list(_lines(at, batches, roster))
    width = max((len(title) for title, _ in lines), default=0)
    listed = [f"{title.ljust(width)}  {visible(*terminal.render([Sentence(pieces)]))}" for title, pieces in lines]
    return [*texts, *(["\n".join(listed)] if listed else []), "Every table: --details here, --report FILE as a page."]


def _lines(at: At, batches: Sequence[At], roster: Roster) -> Iterator[tuple[str, Sequence[Piece]]]:
    """Yield a title and what is said in one line, of each part that was measured."""
    for batch in batches:
        end = f", batch {batch['batch'].text()}" if len(batches) > 1 else ""
        found = [("latency", latency_line(at, batch)), ("memory and size", memory_line(at, batch))]
        measured = ((section, batch.down(section.place)) for section in registry.batch_sections())
        found += [(section.title.lower(), [*section.summary(one, roster)]) for section, one in measured if one]
        yield from ((title + end, pieces) for title, pieces in found if pieces)
    for section in registry.run_sections():
        if (one := at.down(section.place)) and (pieces := section.summary(one, roster)):
            yield section.title.lower(), pieces


def _details(at: At) -> Iterable[str]:
    batches = list(at["batches"])
    roster = Roster(at)
    for batch in batches:
        yield from _batch(at, batch, roster, answer=len(batches) > 1)
    if len(batches) > 1:
        yield from terminal.render(throughputs(at, batches, roster))
    for section in registry.run_sections():
        if one := at.down(section.place):
            yield from terminal.render(section.blocks(one, roster))


def _batch(at: At, batch: At, roster: Roster, *, answer: bool) -> list[str]:
    said = [Sentence([batch["answer"].text()])] if answer else []
    blocks: list[Block] = [
        header(at, batch),
        *said,
        *contestants(at, batch, roster),
        sides(at, batch),
        *notes(at, batch),
    ]
    for section in registry.batch_sections():
        if found := batch.down(section.place):
            blocks += section.blocks(found, batch, roster)
    return terminal.render(blocks)
