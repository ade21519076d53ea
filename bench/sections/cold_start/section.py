"""Cold start as a section: ``--starts``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Ends, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.blocks.plots import StackPlot
from mtl_deploy.bench.sections.base import RunContext, RunSection, SectionFigures
from mtl_deploy.runtime.errors import OptionError

STARTS = 5
_MOST_STARTS = 1000


@dataclass(frozen=True)
class ColdStartSettings:
    """The section's options.

    Attributes:
        starts: of each contestant; None: :data:`STARTS`, and none with ``--quick``.
    """

    starts: int | None


class ColdStartSection(RunSection[ColdStartSettings]):
    """From the start of a process to its first prediction."""

    key, words, title = "cold_start", "the cold start was", "Cold start"

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add ``--starts``."""
        group.add_argument(
            "--starts", type=int, metavar="N", help=f"cold starts of shared and separate (default: {STARTS}); 0: none"
        )

    def settings(self, arguments: argparse.Namespace) -> ColdStartSettings:
        """Return the options.

        Raises:
            OptionError: a number of starts that cannot be used.
        """
        if arguments.starts is not None and not 0 <= arguments.starts <= _MOST_STARTS:
            raise OptionError(f"--starts {arguments.starts}: use 0 to {_MOST_STARTS}")
        return ColdStartSettings(arguments.starts)

    def asked(self, settings: ColdStartSettings) -> bool:
        """Return whether ``--starts`` asks for some."""
        return bool(settings.starts)

    def measure(self, context: RunContext, settings: ColdStartSettings) -> SectionFigures | None:
        """Start shared and separate several times in fresh processes.

        Raises:
            WorkError: a start failed.
        """
        plan = context.plan
        starts = (0 if plan.quick else STARTS) if settings.starts is None else settings.starts
        if not starts:
            return None
        from mtl_deploy.bench.contestants.pair import make_batch
        from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED

        from .starts import measure_cold_start

        specs = [spec for spec in plan.specs if spec.name in (SHARED, SEPARATE)]
        batch = make_batch(plan.pair, context.smallest, plan.seed)
        with context.progress.step("Measuring cold starts"):
            return measure_cold_start(specs, batch, starts=starts, seed=plan.seed, progress=context.progress.update)

    def blocks(self, found: At, roster: Roster) -> list[Block]:
        """Describe the phases of each contestant's starts, and the ratio."""
        contestants = found["contestants"].items()
        if not contestants:
            return []
        phases = list(dict.fromkeys(phase for _, at in contestants for phase, _ in at["phases_ms"].items()))
        words = [phase.replace("_", " ") for phase in phases]
        bars = [
            (roster.title(name), [(words[i], at["phases_ms"][phase], i) for i, phase in enumerate(phases)])
            for name, at in contestants
        ]
        rows: list[list[Cell]] = [
            [
                roster.name(name),
                Estimate(at["total_ms"], "long ms"),
                *(Figure(at["phases_ms"][phase], "long ms") for phase in phases),
                Figure(at["starts"], "count"),
            ]
            for name, at in contestants
        ]
        columns = [
            Column("cold start, ms"),
            Column("median", ends="interval"),
            *map(Column, words),
            Column("starts", only="page"),
        ]
        blocks: list[Block] = [
            Sentence(["From the start of a process to its first prediction."], style="lead", only="page"),
            StackPlot(bars, "Cold start, by phase", "ms", "number"),
            Table("Cold start: medians of the whole, with intervals, and of its phases", columns, rows),
        ]
        return [*blocks, _ratio(found["ratio"])] if found["ratio"] else blocks

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        """Say how long each contestant takes to its first prediction."""
        pieces: list[Piece] = []
        for name, at in found["contestants"].items():
            pieces += [
                f"{', ' if pieces else ''}{roster.title(name)} ",
                Figure(at["total_ms"]["value"], "long ms"),
                " ms",
            ]
        if found["ratio"]:
            pieces += ["; ratio ", Figure(found["ratio"]["value"], "ratio"), " (", Ends(found["ratio"], "ratio"), ")"]
        return pieces


def _ratio(ratio: At) -> Sentence:
    _, low, high = ratio.numbers()
    ends: list[Piece] = ["(interval ", Ends(ratio, "ratio"), ")"]
    much: list[Piece] = [Figure(ratio["value"], "ratio"), " times the time "]
    if low <= 1 <= high:
        much = ["no different time "]
    return Sentence(
        ["To the first prediction the separate models take ", *much, *ends, "; the files were in the page cache."]
    )
