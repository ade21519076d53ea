"""Latency under load as a section: ``--rate`` and ``--deadline``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import at_values, linear
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Estimate, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.blocks.kinds import shown
from mtl_deploy.bench.blocks.plots import Line, LinePlot, all_values, points_of
from mtl_deploy.bench.sections.base import BatchContext, BatchSection, SectionFigures

from .rates import parse_rates, require_deadline

_RATE_S = 6.0  # per rate and contestant, without --duration
_QUANTILES = ("p50", "p90", "p99")  # the page and --help need no NumPy


@dataclass(frozen=True)
class LoadSettings:
    """The section's options.

    Attributes:
        wanted: whether one of them was given.
        rates: requests per second, growing; None: a sweep.
        deadline_ms: for the p99; None: no search.
    """

    wanted: bool
    rates: tuple[float, ...] | None
    deadline_ms: float | None


class OpenLoopSection(BatchSection[LoadSettings]):
    """Latency of requests that arrive by themselves."""

    key, words, title = "open_loop", "the latency under load was", "Latency under load"

    def add_options(self, group: argparse._ArgumentGroup) -> None:
        """Add ``--rate`` and ``--deadline``."""
        group.add_argument(
            "--rate",
            metavar="R[,R...]|sweep",
            help="open loop: requests per second; sweep: shares of what each contestant does in a closed loop",
        )
        group.add_argument(
            "--deadline", type=float, metavar="MS", help="search for the highest rate at which the p99 latency keeps it"
        )

    def settings(self, arguments: argparse.Namespace) -> LoadSettings:
        """Return the options.

        Raises:
            OptionError: rates or a deadline that cannot be used.
        """
        require_deadline(arguments.deadline)
        wanted = arguments.rate is not None or arguments.deadline is not None
        return LoadSettings(wanted, parse_rates(arguments.rate or "sweep"), arguments.deadline)

    def asked(self, settings: LoadSettings) -> bool:
        """Return whether one of the options was given."""
        return settings.wanted

    def measure(self, context: BatchContext, settings: LoadSettings) -> SectionFigures | None:
        """Offer shared, separate and concurrent requests at several rates.

        Raises:
            WorkError: a contestant failed.
        """
        if not settings.wanted:
            return None
        from mtl_deploy.bench.contestants.specs import CONCURRENT, SEPARATE, SHARED

        from .open_loop import measure_open_loop

        names = [name for name in (SHARED, SEPARATE, CONCURRENT) if name in context.hosts]
        duration = context.plan.duration
        with context.progress.step("Measuring latency under load"):
            return measure_open_loop(
                {name: context.hosts[name] for name in names},
                context.batch,
                rates=settings.rates,
                deadline_ms=settings.deadline_ms,
                seconds=_RATE_S if duration is None else duration / len(names),
                seed=context.plan.seed,
                closed_loop_per_s={name: 1000 / float(context.measurement.calls(name).mean()) for name in names},
                progress=context.progress.update,
            )

    def blocks(self, found: At, batch: At, roster: Roster) -> list[Block]:
        """Describe the latencies at each rate, and the highest rates that keep the deadline."""
        contestants = [(name, at) for name, at in found["contestants"].items() if at["rates"]]
        if not contestants:
            return []
        deadline = found["deadline_ms"]
        rows: list[list[Cell]] = [
            [
                roster.name(name, line=True),
                Figure(rate["rate_per_s"], "rate"),
                Figure(rate["calls"], "count"),
                Figure(rate["utilisation"], "busy"),
                *(_latency(rate, word) for word in _QUANTILES),
                *([{True: "met", False: "missed"}.get(rate["meets_deadline"].value, "open")] if deadline else []),
            ]
            for name, at in contestants
            for rate in at["rates"]
        ]
        titles = ["under load", "requests/s", "calls", "busy, %", *(f"{word}, ms" for word in _QUANTILES)]
        columns = [Column(title) for title in [*titles, *(["deadline"] if deadline else [])]]
        return [
            Sentence(
                [
                    f"Requests arrive by themselves ({found['process'].text()}), whether or not the last one is done; a latency "
                    "counts from the arrival. Where requests arrive faster than they are served, latency grows."
                ],
                style="lead",
                only="page",
            ),
            *_plot(contestants, deadline, batch, roster),
            Table("Latency under load, with 95 % intervals", columns, rows),
            *_highest(contestants, deadline, roster),
        ]

    def summary(self, found: At, roster: Roster) -> list[Piece]:
        """Say which rates keep the deadline; without one, the p99 at the highest rate that each contestant sustained."""
        contestants, deadline = found["contestants"].items(), found["deadline_ms"]
        kept = [(name, at["highest_rate_per_s"]) for name, at in contestants if deadline and at["highest_rate_per_s"]]
        pieces: list[Piece] = ["p99 within ", Figure(deadline, "plain"), " ms: "] if kept else []
        for place, (name, highest) in enumerate(kept):
            pieces += [f"{', ' if place else ''}{roster.title(name)} up to ", Figure(highest, "rate"), " requests/s"]
        for name, at in contestants if not kept else ():
            known = [rate for rate in at["rates"] if rate["sustained"].value is not False and rate["latency_ms"]["p99"]]
            for rate in sorted(known, key=lambda rate: rate["rate_per_s"].number())[-1:]:
                p99 = Figure(rate["latency_ms"]["p99"]["value"], "ms")
                pieces += [f"{', ' if pieces else ''}{roster.title(name)} p99 ", p99, " ms at "]
                pieces += [Figure(rate["rate_per_s"], "rate"), " requests/s"]
        return pieces


def _latency(rate: At, word: str) -> Cell:
    return "grows" if rate["sustained"].value is False else Estimate(rate["latency_ms"][word], "ms")


def _highest(contestants: list[tuple[str, At]], deadline: At, roster: Roster) -> list[Block]:
    """Return the highest rates in a sentence; without those whose search was interrupted."""
    parts: list[Piece] = []
    for name, at in contestants if deadline else ():
        highest, beyond = at["highest_rate_per_s"], at["missed_from_per_s"]
        if not highest and any(rate["meets_deadline"].value is not False for rate in at["rates"]):
            continue  # interrupted, or not decided: a warning says so
        parts.append(f"{', ' if parts else ''}{roster.title(name)} ")
        parts += ["up to ", Figure(highest, "rate"), " requests per second"] if highest else ["at none of the rates"]
        parts += [" (missed from ", Figure(beyond, "rate"), " on)"] if highest and beyond else []
    return [Sentence(["p99 within ", Figure(deadline, "plain"), " ms: ", *parts, "."])] if parts else []


def _plot(contestants: list[tuple[str, At]], deadline: At, batch: At, roster: Roster) -> list[Block]:
    lines = []
    for name, at in contestants:
        rates = [rate for rate in at["rates"] if rate["latency_ms"]["p99"]]
        hollow = frozenset(place for place, rate in enumerate(rates) if rate["sustained"].value is False)
        points = points_of([(rate["rate_per_s"].number(), rate["latency_ms"]["p99"]) for rate in rates])
        lines.append(Line(roster.title(name), points, roster.slot(name), hollow=hollow))
    rates_at = [point[0] for line in lines for point in line.points]
    if not rates_at:
        return []
    limit = deadline.number()
    values = [*all_values(lines), limit]
    sustained = [
        number
        for line in lines
        for place, point in enumerate(line.points)
        if place not in line.hollow
        for number in point[1:]
    ]
    # a rate that is not sustained grows without bound: the axis ends where the deadline can still be read
    most = max([*sustained, limit] if deadline else sustained or values, default=1.0)
    return [
        LinePlot(
            lines,
            at_values(rates_at, log=False) if len(set(rates_at)) == 1 else linear([0, *rates_at]),
            linear([0, *(min(value, 1.5 * most) for value in values)]),
            title=f"Latency under load, batch {batch['batch'].text()}",
            x="requests per second",
            y="latency p99, ms",
            level=(limit, f"deadline {shown(limit, 'plain')} ms") if deadline else None,
            caption="Hollow marks: rates that were not sustained; what is higher than the axis stands at its end.",
        )
    ]
