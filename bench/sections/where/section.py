"""Where the time goes as a section: ``--no-where``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import (
    Block,
    Cell,
    Column,
    Ends,
    Estimate,
    Figure,
    Name,
    Phrase,
    Piece,
    Roster,
    Sentence,
    Table,
)
from mtl_deploy.bench.blocks.plots import StackPlot
from mtl_deploy.bench.sections.base import BatchContext, BatchSection, SectionFigures

_OPERATORS = 3  # named per part
_PARTS = 4  # named in one line


@dataclass(frozen=True)
class WhereSettings:
    """The section's options.

    Attributes:
        wanted: False: it is left out.
    """

    wanted: bool


class WhereSection(BatchSection[WhereSettings]):
    """Where the time goes inside the shared artifact."""

    key, words, title = "where", "where the time goes was", "Where the time goes"

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add ``--no-where``."""
        group.add_argument(
            "--no-where", action="store_true", help="leave out where the time goes in the shared artifact"
        )

    def settings(self, arguments: argparse.Namespace) -> WhereSettings:
        """Return the options."""
        return WhereSettings(not arguments.no_where)

    def measure(self, context: BatchContext, settings: WhereSettings) -> SectionFigures | None:
        """Profile the shared artifact.

        Raises:
            BackendError: it runs where no profile can be taken.
            RunError: running or profiling failed.
        """
        from mtl_deploy.bench.contestants.specs import SHARED

        host = context.hosts.get(SHARED)
        if not settings.wanted or context.plan.quick or host is None:
            return None
        from .ideal import ideal_multiply_adds, ideal_weights, multiply_adds
        from .where import measure_where

        pair = context.plan.pair
        with context.progress.step("Profiling the shared artifact"):
            return measure_where(
                host,
                context.batch,
                context.measurement.by_name(),
                ideal=ideal_multiply_adds(pair),
                ideal_bytes=ideal_weights(pair),
                multiply_adds=multiply_adds(pair),
                progress=context.progress.update,
            )

    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:  # noqa: ARG002
        """Describe the parts with their shares, their check by whole calls, and what is lost of the ideal."""
        parts = list(found["parts"])
        if not parts:
            return []
        bar = [(part["name"].text(), part["share"], place) for place, part in enumerate(parts)]
        whole = {part["name"].text(): part["share"] for part in found["end_to_end"]["parts"]}
        rows = [_row(part, place, whole) for place, part in enumerate(parts)]
        columns = [
            Column("where the time goes"),
            Column("ms"),
            Column("share, %"),
            *([Column("whole calls, %")] if whole else []),
            Column("operators, %"),
        ]
        title = f"Where the shared pass's time goes, batch {batch['batch'].text()}"
        blocks: list[Block] = [
            StackPlot([("the shared pass", bar)], title, "share of the time, %", "percent"),
            Table("Parts of the shared pass, with 95 % intervals", columns, rows),
            _lost(found),
        ]
        check = found["end_to_end"]
        if check:
            agrees = bool(check["agrees"].value)
            difference = Figure(check["largest_difference"], "percent")
            said = f"The profile {'agrees' if agrees else 'does not agree'} with whole calls: they differ by up to "
            blocks.append(Sentence([said, difference, " of a call."], style=None if agrees else "bad", only="page"))
        return blocks

    def summary(self, found: At, roster: Roster) -> list[Piece]:  # noqa: ARG002
        """Say which parts take most of the time."""
        pieces: list[Piece] = []
        parts = sorted(found["parts"], key=lambda part: part["share"].number(), reverse=True)
        for part in parts[:_PARTS]:
            pieces += [f"{', ' if pieces else ''}{part['name'].text()} ", Figure(part["share"], "percent")]
        return [*pieces, f", {len(parts) - _PARTS} more"] if len(parts) > _PARTS else pieces


def _row(part: At, place: int, whole: dict[str, At]) -> list[Cell]:
    name = part["name"].text()
    operators: list[Piece] = []
    for operator in list(part["operators"])[:_OPERATORS]:
        operators += [f"{', ' if operators else ''}{operator['type'].text()} ", Figure(operator["share"], "percentage")]
    row: list[Cell] = [Name(name, place), Estimate(part["ms"], "short ms"), Figure(part["share"], "percentage")]
    if whole:
        row.append(Ends(whole[name], "percentage") if name in whole else "")
    return [*row, Phrase(operators)]


def _lost(found: At) -> Sentence:
    lost = found["lost"]
    parts: list[Piece] = [found["source"].text()]
    if found["calls"]:
        parts += [" of ", Figure(found["calls"], "count"), " calls"]
    if not lost:
        return Sentence([*parts, "."])
    measured = lost["measured"]
    parts += [". T" if measured else "; t", "he multiply-adds allow a ratio of ", Figure(lost["ideal"], "ratio")]
    if lost["bytes"]:
        parts += [", the weights that are read ", Figure(lost["bytes"], "ratio")]
    if measured:
        parts += ["; measured was ", Figure(measured, "ratio")]
        reasons = [reason.text() for reason in lost["reasons"]]
        parts += [f": {'; '.join(reasons)}"] if reasons else []
    return Sentence([*parts, "."])
