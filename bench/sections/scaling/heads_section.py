"""Scaling over heads as a section: ``--heads``."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import at_values, linear
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.blocks.plots import Line, LinePlot, all_values, points_of
from mtl_deploy.bench.sections.base import RunContext, RunSection, SectionFigures
from mtl_deploy.bench.sections.counts import parse_numbers
from mtl_deploy.runtime.errors import WorkError
from mtl_deploy.runtime.files.temporary import temporary_folder

MOST = 8


@dataclass(frozen=True)
class HeadsSettings:
    """The section's options.

    Attributes:
        counts: numbers of heads, growing; empty: not measured.
    """

    counts: tuple[int, ...]


class HeadsSection(RunSection[HeadsSettings]):
    """The same comparison with 1 to 8 heads on one backbone."""

    key, words, title = "heads", "the scaling with heads was", "Scaling over heads"

    @property
    def place(self) -> tuple[str, ...]:
        """The keys that lead to it in the JSON document."""
        return ("scaling", self.key)

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add ``--heads``."""
        group.add_argument("--heads", metavar="N,...", help="scaling over 1 to 8 synthetic heads, such as 1,2,4,8")

    def settings(self, arguments: argparse.Namespace) -> HeadsSettings:
        """Return the options.

        Raises:
            OptionError: they are no numbers, or beyond 1 to 8.
        """
        counts = () if arguments.heads is None else parse_numbers("--heads", arguments.heads, "1,2,4,8", MOST)
        return HeadsSettings(tuple(sorted(counts)))

    def asked(self, settings: HeadsSettings) -> bool:
        """Return whether ``--heads`` was given."""
        return bool(settings.counts)

    def measure(self, context: RunContext, settings: HeadsSettings) -> SectionFigures | None:
        """Make networks of synthetic heads, and measure them.

        Raises:
            WorkError: engines were measured; the networks are graphs.
        """
        if not settings.counts:
            return None
        pair = context.plan.pair
        if pair.engines:
            raise WorkError(
                "the networks that are made for it are graphs, and engines were measured; add --backend onnxruntime"
            )
        from .heads import measure_heads
        from .synthetic import make_heads

        with temporary_folder() as folder:
            with context.progress.step("Making networks of synthetic heads"):
                made = make_heads(pair.bundle.path, settings.counts, pair.shared.precision, folder)
            names = {path: f"{count} head{'s' if count > 1 else ''}" for count, path in made.items()}
            return measure_heads(
                made,
                context.again(lambda path, _: names[path]),
                context.plan.settings,
                precision=pair.shared.precision,
                backend=pair.backend,
                progress=context.progress.update,
            )

    def blocks(self, found: At, roster: Roster) -> list[Block]:  # noqa: ARG002
        """Describe cost and ratio over heads, and the fit."""
        rows = list(found["rows"])
        if not rows:
            return []
        cells: list[list[Cell]] = [
            [
                Figure(row["heads"], "count"),
                Estimate(row["shared_ms"], "ms"),
                Estimate(row["separate_ms"], "ms"),
                Estimate(row["ratio"], "ratio"),
                Figure(row["ideal"], "ratio"),
            ]
            for row in rows
        ]
        columns = [
            Column("heads"),
            Column("shared, ms"),
            Column("separate, ms"),
            Column("ratio", ends="95 % interval"),
            Column("ideal"),
        ]
        table = Table("Cost over the number of heads, with 95 % intervals", columns, cells)
        return [_plot(rows, found["fit"]), table, *([_fit(found["fit"])] if found["fit"] else [])]

    def summary(self, found: At, roster: Roster) -> list[Piece]:  # noqa: ARG002
        """Say how the ratio grows from the fewest heads to the most."""
        rows = list(found["rows"])
        pieces: list[Piece] = []
        for row in [*rows[:1], *rows[1:][-1:]]:
            pieces += [f"{', ' if pieces else 'ratio '}", Figure(row["ratio"]["value"], "ratio"), " with "]
            pieces += [Figure(row["heads"], "count"), f" head{'' if row['heads'].value == 1 else 's'}"]
        return pieces


def _plot(rows: list[At], fit: At) -> LinePlot:
    counts = [row["heads"].number() for row in rows]
    backbone, head, model = (fit[word].number() for word in ("backbone_ms", "head_ms", "model_ms"))
    lines = []
    if not any(map(math.isnan, (backbone, head, model))):
        shared = [(n, backbone + n * head, math.nan, math.nan) for n in counts]
        separate = [(n, n * model, math.nan, math.nan) for n in counts]
        lines += [
            Line("backbone + n heads, fit", shared, 0, marks=False),
            Line("n models, fit", separate, 1, marks=False),
        ]
    measured = (("shared, measured", "shared_ms"), ("separate, measured", "separate_ms"))
    lines += [
        Line(name, points_of([(row["heads"].number(), row[word]) for row in rows]), place, joined=False)
        for place, (name, word) in enumerate(measured)
    ]
    return LinePlot(
        lines,
        at_values(counts, log=False),
        linear([0, *all_values(lines)]),
        title="Cost over the number of heads",
        x="heads",
        y="time of a call, ms",
    )


def _fit(fit: At) -> Sentence:
    share = fit["largest_residual_share"]
    parts: list[Piece] = ["With n heads, shared takes ", Figure(fit["backbone_ms"], "ms"), " + "]
    parts += [
        Figure(fit["head_ms"], "short ms"),
        " n ms and separate ",
        Figure(fit["model_ms"], "ms"),
        " n ms; the largest ",
    ]
    parts += ["distance to a measured time is ", Figure(fit["largest_residual"], "ms"), " ms"]
    parts += [" (", Figure(share, "percent"), ")"] if share else []
    return Sentence([*parts, "."])
