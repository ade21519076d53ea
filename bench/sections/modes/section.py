"""Both modes of graphs on processors as a section: ``--modes``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.sections.base import BatchContext, BatchSection, SectionFigures
from mtl_deploy.runtime.errors import WorkError


@dataclass(frozen=True)
class ModesSettings:
    """The section's options.

    Attributes:
        wanted: whether it was asked for.
    """

    wanted: bool


class ModesSection(BatchSection[ModesSettings]):
    """Images per second where as many threads call at once as there are cores: in mode latency and in mode throughput."""

    key, words, title = "modes", "the throughput in both modes was", "Latency mode and throughput mode"

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add ``--modes``."""
        group.add_argument(
            "--modes",
            action="store_true",
            help="graphs on processors in both modes of load(mode=...), called from one thread per core at once",
        )

    def settings(self, arguments: argparse.Namespace) -> ModesSettings:
        """Return whether it was asked for."""
        return ModesSettings(arguments.modes)

    def asked(self, settings: ModesSettings) -> bool:
        """Return whether it was asked for."""
        return settings.wanted

    def measure(self, context: BatchContext, settings: ModesSettings) -> SectionFigures | None:
        """Call shared and separate from several threads, in both modes.

        Raises:
            WorkError: engines were measured, or a contestant failed.
        """
        if not settings.wanted:
            return None
        if context.plan.pair.engines:
            raise WorkError(
                "modes are those of graphs on processors, and engines were measured; add --backend onnxruntime"
            )
        from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
        from mtl_deploy.runtime.backends.modes import usable_cores

        from .modes import measure_modes

        with context.progress.step("Measuring both modes"):
            return measure_modes(
                {name: context.hosts[name] for name in (SHARED, SEPARATE) if name in context.hosts},
                context.batch,
                usable_cores(),
                progress=context.progress.update,
            )

    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:  # noqa: ARG002
        """Describe rates and latencies in both modes."""
        rows: list[list[Cell]] = [
            [
                roster.name(name, line=True),
                mode,
                Estimate(one["images_per_s"], "rate"),
                Figure(one["p50_ms"], "ms"),
                Estimate(at["gain"], "ratio") if mode == "throughput" else "",
            ]
            for name, at in found["contestants"].items()
            for mode, one in at["modes"].items()
        ]
        columns = [Column(title) for title in ("called at once", "mode", "images per second", "call p50, ms", "gain")]
        callers = found["callers"]
        return [
            Sentence(
                [
                    Figure(callers, "count"),
                    f" thread{'s call' if callers.number() > 1 else ' calls'} at once, as fast as they are answered. The gain is "
                    "throughput mode over latency mode, by rounds in turn.",
                ],
                style="lead",
                only="page",
            ),
            Table("Both modes, with 95 % intervals", columns, rows),
        ]

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        """Say what throughput mode gains."""
        pieces: list[Piece] = []
        for name, at in found["contestants"].items():
            pieces += [
                f"{', ' if pieces else 'throughput mode over latency mode, images per second: '}{roster.title(name)} "
            ]
            pieces += [Figure(at["gain"]["value"], "ratio")]
        return pieces
