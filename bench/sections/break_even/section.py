"""Break-even as a section: always, from what is measured anyway."""

from __future__ import annotations

import argparse

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import at_values, linear
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.blocks.plots import Line, LinePlot, all_values, points_of
from mtl_deploy.bench.sections.base import RunContext, RunSection, SectionFigures


class BreakEvenSection(RunSection[None]):
    """From how many tasks, and from which batch, sharing pays."""

    key, words, title = "break_even", "the break-even was", "Break-even"

    def settings(self, arguments: argparse.Namespace) -> None:  # noqa: ARG002
        """Return nothing: it has no options."""
        return

    def measure(self, context: RunContext, settings: None) -> SectionFigures | None:  # noqa: ARG002
        """Find it from the latencies."""
        if context.plan.quick:
            return None
        from .break_even import break_even

        tasks = [task.name for task in context.plan.pair.bundle.manifest.tasks]
        batches = {size: measurement.by_name() for size, measurement in context.batches.items()}
        found = break_even(batches, tasks)
        return found if found.rows or len(found.batches) > 1 else None

    def blocks(self, found: At, roster: Roster) -> list[Block]:  # noqa: ARG002
        """Describe the ratio over tasks, and over batches where there are several; and the answer."""
        tasks, batches = list(found["tasks"]["rows"]), list(found["batch"]["rows"])
        blocks: list[Block] = []
        if tasks:
            blocks += _ratios(tasks, "tasks", "number of tasks", log=False)
        if len(batches) > 1:
            blocks += _ratios(batches, "batch", "images per call", log=True)
        return [*blocks, Sentence([found["answer"].text()])] if found["answer"] else blocks

    def summary(self, found: At, roster: Roster) -> list[Piece]:  # noqa: ARG002
        """Say from how many tasks, and from which batch, sharing pays."""
        return [found["answer"].text()] if found["answer"] else []


def _ratios(rows: list[At], word: str, unit: str, *, log: bool) -> list[Block]:
    line = Line("separate over shared", points_of([(row[word].number(), row["ratio"]) for row in rows]), 0)
    plot = LinePlot(
        [line],
        at_values([row[word].number() for row in rows], log=log),
        linear([1.0, *all_values([line])]),
        title=f"Separate over shared, over {unit}",
        x=unit,
        y="separate over shared",
        level=(1.0, "no difference"),
        level_right=True,
    )
    origins = any(row["measured"].value is not None for row in rows)
    cells: list[list[Cell]] = [
        [Figure(row[word], "count"), Estimate(row["ratio"], "ratio"), *([_origin(row)] if origins else [])]
        for row in rows
    ]
    columns = [Column(word), Column("ratio", ends="95 % interval"), *([Column("from")] if origins else [])]
    return [plot, Table(f"Separate over shared, over {unit}, with 95 % intervals", columns, cells)]


def _origin(row: At) -> str:
    """Return what the ratio of a number of tasks comes from."""
    if row["measured"].value:
        return "measured"
    return "model" if row["beyond"].value else "differences"
