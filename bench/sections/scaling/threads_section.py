"""Scaling over threads as a section: ``--threads`` with several numbers."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import at_values, linear
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Estimate, Figure, Piece, Roster, Table
from mtl_deploy.bench.blocks.plots import Line, LinePlot, all_values, points_of
from mtl_deploy.bench.sections.base import RunContext, RunSection, SectionFigures
from mtl_deploy.bench.sections.counts import parse_threads
from mtl_deploy.runtime.errors import WorkError


@dataclass(frozen=True)
class ThreadsSettings:
    """The section's options.

    Attributes:
        threads: of ONNX Runtime inside an operator; fewer than two: not measured.
    """

    threads: tuple[int, ...]


class ThreadsSection(RunSection[ThreadsSettings]):
    """The same comparison with each number of threads. The option is the run's own: its first number is used everywhere."""

    key, words, title = "threads", "the scaling with threads was", "Scaling over threads"

    @property
    def place(self) -> tuple[str, ...]:
        """The keys that lead to it in the JSON document."""
        return ("scaling", self.key)

    def settings(self, arguments: argparse.Namespace) -> ThreadsSettings:
        """Return the numbers of ``--threads``.

        Raises:
            OptionError: they are no numbers.
        """
        return ThreadsSettings(parse_threads(arguments.threads))

    def asked(self, settings: ThreadsSettings) -> bool:
        """Return whether several numbers were given."""
        return len(settings.threads) > 1

    def measure(self, context: RunContext, settings: ThreadsSettings) -> SectionFigures | None:
        """Measure shared and separate with each number of threads.

        Raises:
            WorkError: engines were measured, which have no such setting.
        """
        plan = context.plan
        if not self.asked(settings):
            return None
        if plan.pair.engines:
            raise WorkError("--threads are those of graphs, and engines were measured; add --backend onnxruntime")
        from .threads import measure_threads

        return measure_threads(
            settings.threads,
            context.again(lambda _, used: f"{used.threads} thread{'s' if used.threads != 1 else ''}"),
            plan.pair.bundle.path / plan.pair.shared.path,
            plan.settings,
            batch=context.smallest,
            progress=context.progress.update,
        )

    def blocks(self, found: At, roster: Roster) -> list[Block]:
        """Describe latency and ratio over threads."""
        rows = list(found["rows"])
        if not rows:
            return []
        names = list(dict.fromkeys(name for row in rows for name, _ in row["contestants"].items()))
        lines = [
            Line(
                roster.title(name),
                points_of([(row["threads"].number(), row["contestants"][name]["p50_ms"]) for row in rows]),
                roster.slot(name),
            )
            for name in names
        ]
        plot = LinePlot(
            lines,
            at_values([row["threads"].number() for row in rows], log=True),
            linear([0, *all_values(lines)]),
            title="Latency over threads",
            x="threads",
            y="latency p50, ms",
        )
        cells: list[list[Cell]] = [
            [
                Figure(row["threads"], "count"),
                *(Estimate(row["contestants"][name]["p50_ms"], "ms") for name in names),
                *(Figure(row["contestants"][name]["images_per_s"], "rate") for name in names),
                Estimate(row["ratio"], "ratio"),
            ]
            for row in rows
        ]
        columns = [
            Column("threads"),
            *(Column(f"{name} p50, ms") for name in names),
            *(Column(f"{name}, images per second", only="page") for name in names),
            Column("ratio", ends="95 % interval"),
        ]
        return [plot, Table("Latency and ratio over threads, with 95 % intervals", columns, cells)]

    def summary(self, found: At, roster: Roster) -> list[Piece]:  # noqa: ARG002
        """Say the ratio with each number of threads."""
        pieces: list[Piece] = []
        for row in found["rows"]:
            pieces += [f"{', ' if pieces else 'ratio '}", Figure(row["ratio"]["value"], "ratio"), " with "]
            pieces += [Figure(row["threads"], "count"), f" thread{'' if row['threads'].value == 1 else 's'}"]
        return pieces
