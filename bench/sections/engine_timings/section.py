"""The GPU's clock as a section: always, of engines."""

from __future__ import annotations

import argparse

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.sections.base import BatchContext, BatchSection, SectionFigures

_DEFAULTS = {(True, False): " (trtexec 10)", (False, True): " (trtexec 11)"}
"""Whose default a way is, by whether it has transfers and a CUDA graph."""


class EngineTimingsSection(BatchSection[None]):
    """What the GPU does inside a call."""

    key, words, title = "engine_timings", "the GPU timings were", "Inside the engines"

    def settings(self, arguments: argparse.Namespace) -> None:  # noqa: ARG002
        """Return nothing: it has no options."""
        return

    def measure(self, context: BatchContext, settings: None) -> SectionFigures | None:  # noqa: ARG002
        """Measure engines on the GPU's clock.

        Raises:
            RunError: the GPU or the library failed.
        """
        if not context.plan.pair.engines or context.plan.quick:
            return None
        from mtl_deploy.bench.contestants.forms import Side
        from mtl_deploy.bench.contestants.hosts import LocalHost
        from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED

        from .timings import measure_timings

        hosts = [context.hosts[name] for name in (SHARED, SEPARATE) if name in context.hosts]
        contestants = [host.contestant for host in hosts if isinstance(host, LocalHost)]
        sides = [contestant for contestant in contestants if isinstance(contestant, Side)]
        if not sides:
            return None
        with context.progress.step("Measuring on the GPU's clock"):
            graphs = context.plan.settings.cuda_graphs
            return measure_timings(sides, context.batch, graphs=graphs, progress=context.progress.update)

    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:  # noqa: ARG002
        """Describe the medians of each part of a call, for each side and way to call it."""
        parts = found["names"].items()
        rows: list[list[Cell]] = []
        for side, ways in found["sides"].items():
            for way in ways.values():
                transfers, graph = bool(way["transfers"].value), bool(way["cuda_graph"].value)
                how = f"{'with' if transfers else 'no'} transfers, {'CUDA graph' if graph else 'no graph'}"
                cells = [
                    Figure(way["median_ms"][part], "short ms") if transfers or part not in ("h2d", "d2h") else "n/a"
                    for part, _ in parts
                ]
                default = _DEFAULTS.get((transfers, graph), "")
                rows.append([roster.name(side), how + default, *cells, Figure(way["calls"], "count")])
        if not rows:
            return []
        columns = [
            Column("GPU timings, median ms"),
            Column(""),
            *(Column(title.text()) for _, title in parts),
            Column("calls", only="page"),
        ]
        blocks: list[Block] = [Table("On the GPU's clock: medians in milliseconds", columns, rows)]
        if found["graphs_off"]:
            blocks.append(Sentence([f"No CUDA graphs: {found['graphs_off'].text()}."], style="note", only="page"))
        return blocks

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        """Say how much of each side's latency on the GPU's clock its kernels take, called as deployments call it where it was."""
        pieces: list[Piece] = []
        for side, ways in found["sides"].items():
            known = [way for way in ways.values() if way["transfers"].value]
            for way in [*(way for way in known if way["cuda_graph"].value), *known][:1]:
                kernels, whole = (
                    Figure(way["median_ms"]["compute"], "short ms"),
                    Figure(way["median_ms"]["latency"], "short ms"),
                )
                pieces += [f"{', ' if pieces else ''}{roster.title(side)} ", kernels, " ms of ", whole, " ms"]
        return [*pieces, " are kernels, on the GPU's clock"] if pieces else []
