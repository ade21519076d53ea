"""Energy as a section: ``--energy`` and ``--no-energy``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import linear
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.blocks.plots import Dot, IntervalPlot
from mtl_deploy.bench.sections.base import BatchContext, BatchSection, SectionFigures
from mtl_deploy.runtime.errors import WorkError

_SECONDS = 3.0  # per contestant, where nobody asked for energy


@dataclass(frozen=True)
class EnergySettings:
    """The section's options.

    Attributes:
        wanted: of all contestants, or a warning with the reason; False: not at all; None: of shared and separate, where the machine
            can tell.
    """

    wanted: bool | None


class EnergySection(BatchSection[EnergySettings]):
    """The energy of an image."""

    key, words, title = "energy", "the energy was", "Energy"

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add ``--energy`` and ``--no-energy``."""
        group.add_argument(
            "--energy",
            action=argparse.BooleanOptionalAction,
            help="joules per image, of all contestants (default: of shared and separate, if the machine can measure it)",
        )

    def settings(self, arguments: argparse.Namespace) -> EnergySettings:
        """Return the options."""
        return EnergySettings(arguments.energy)

    def asked(self, settings: EnergySettings) -> bool:
        """Return whether ``--energy`` was given."""
        return bool(settings.wanted)

    def measure(self, context: BatchContext, settings: EnergySettings) -> SectionFigures | None:
        """Measure it where the machine can tell.

        Raises:
            WorkError: it was asked for, and nothing can be read; says why.
        """
        wanted = settings.wanted
        if wanted is False or (wanted is None and context.plan.quick):
            return None
        from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, SUBSET
        from mtl_deploy.bench.machine.power_meters import find_meters

        from .measure import measure_energy

        found = find_meters()
        hosts = {
            name: host
            for name, host in context.hosts.items()
            if (host.spec.kind != SUBSET if wanted else name in (SHARED, SEPARATE))
        }
        if found.meters:
            with context.progress.step("Measuring energy"):
                measured = measure_energy(
                    hosts,
                    context.batch,
                    found.meters,
                    seconds=context.plan.slot_seconds if wanted else _SECONDS,
                    images=context.size,
                    progress=context.progress.update,
                )
            if measured is not None:
                return measured
        if wanted:
            meters = [f"{meter.source} gave no reading for these contestants" for meter in found.meters]
            raise WorkError(f"nothing here measures it: {'; '.join([*meters, *found.missing])}")
        return None

    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:
        """Describe a table for each meter."""
        return [block for meter in (found, *found["further"]) for block in _meter(meter, batch, roster)]

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        """Say what an image takes, by the first meter."""
        pieces: list[Piece] = []
        for name, at in found["contestants"].items():
            pieces += [
                f"{', ' if pieces else ''}{roster.title(name)} ",
                Figure(at["joules_per_image"]["value"], "joules"),
            ]
            pieces.append(" J/image")
        return [*pieces, f" ({found['source'].text()})"] if pieces else []


def _meter(found: At, batch: At, roster: Roster) -> list[Block]:
    contestants = found["contestants"].items()
    if not contestants:
        return []
    dots = [Dot(roster.title(name), at["joules_per_image"], roster.slot(name)) for name, at in contestants]
    axis = linear([0, *(number for dot in dots for number in dot.at.numbers())])
    source, domain = found["source"].text(), found["domain"].text()
    reference = found["contestants"]["shared"]["joules_per_image"]["value"].number()
    rows: list[list[Cell]] = [
        [
            roster.name(name),
            Estimate(at["joules_per_image"], "joules"),
            "" if name == "shared" else _times(at["joules_per_image"]["value"].number(), reference),
            Figure(at["watts"], "watts"),
            Figure(at["seconds"], "rate"),
        ]
        for name, at in contestants
    ]
    columns = [
        Column(f"energy, {source}"),
        Column("J/image", ends="interval"),
        Column("ratio", only="terminal"),  # no figure of the result
        Column("watts"),
        Column("seconds measured", only="page"),
    ]
    idle: list[Piece] = [" Idle, with all contestants loaded: ", Figure(found["idle_watts"], "watts"), " W."]
    return [
        IntervalPlot(
            dots, axis, f"Energy of an image, batch {batch['batch'].text()}, {source}", "joules per image", "number"
        ),
        Table("Energy with 95 % intervals", columns, rows),
        Sentence(
            [f"Of {domain}, with everything else that draws on it.", *(idle if found["idle_watts"] else [])],
            style="note",
        ),
    ]


def _times(joules: float, reference: float) -> str:
    return f"{joules / reference:.2f}" if reference > 0 else ""
