"""What of a result a terminal and a page both show: the tables of its latencies, and its warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import at_values, for_factors, linear
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Ends, Estimate, Figure, Phrase, Roster, Table
from mtl_deploy.bench.blocks.plots import Dot, IntervalPlot, Line, LinePlot


def contestants(document: At, batch: At, roster: Roster) -> list[Block]:
    """Describe how each contestant compares with the shared pass; nothing where there is no other.

    Args:
        document: the whole result.
        batch: one of its batch sizes.
        roster: the contestants' titles.
    """
    ratios = [(name, at) for name, at in batch["ratios"].items() if at["value"]]
    if not ratios:
        return []
    dots = [Dot(roster.title(name), at, roster.slot(name), verdict(at)) for name, at in ratios]
    axis = for_factors([number for _, at in ratios for number in at.numbers()])
    title = f"Time over the shared pass's, batch {batch['batch'].text()}"
    unit = "ratio to the shared pass" + (", logarithmic" if axis.log else "")
    ms = milliseconds(document, batch)
    rows: list[list[Cell]] = []
    for name, one in batch["contestants"].items():
        found = batch["ratios"][name]
        row: list[Cell] = [
            roster.name(name),
            Estimate(one["latency_ms"]["p50"], ms),
            Figure(one["images_per_s"], "rate"),
        ]
        if found:
            said = verdict(found)
            interval = Phrase([Ends(found, "ratio"), ", no difference" if said == "no difference" else ""])
            rows.append([*row, Estimate(found, "ratio"), interval, said])
        else:
            rows.append([*row, "", "", ""])
    columns = [
        Column("contestant"),
        Column("latency p50, ms"),
        Column("images per second"),
        Column("ratio"),
        Column("95 % interval", only="terminal"),
        Column("the shared pass is", only="page"),
    ]
    return [
        IntervalPlot(dots, axis, title, unit, "ratio", mark=1.0),
        Table("Time over the shared pass's, with 95 % intervals", columns, rows),
    ]


def verdict(ratio: At) -> str:
    """Say what a ratio to the shared pass means, as the answer does."""
    value, low, high = ratio.numbers()
    if ratio["difference"].value is False or low <= 1 <= high:
        return "no difference"
    return "faster" if value > 1 else "slower"


def milliseconds(document: At, batch: At) -> str:
    """Return how a terminal writes a latency: some calls take less than a millisecond."""
    mean = batch["contestants"]["shared"]["latency_ms"]["mean"]["value"].number()
    return "short ms" if document["backend"].value == "tensorrt" or mean < 1 else "ms"


def gathered_warnings(document: At, word: str) -> list[str]:
    """Return what casts doubt on the figures, of the whole run and of each batch size, each said once.

    Args:
        document: the whole result.
        word: ``warnings``: all of them; ``answer_warnings``: those that matter to the answer. A result that does not tell these
            apart gives all.
    """
    batches = list(document["batches"])
    of_batch: dict[str, list[str]] = {}
    for batch in batches:
        for warning in _listed(batch, word):
            of_batch.setdefault(warning.text(), []).append(batch["batch"].text())
    texts = [warning.text() for warning in _listed(document, word)]
    for text, sizes in of_batch.items():
        everywhere = len(sizes) == len(batches)
        texts.append(text if everywhere else f"batch {', '.join(sizes)}: {text}")
    return list(dict.fromkeys(texts))


def _listed(at: At, word: str) -> At:
    return at["warnings"] if at[word].value is None else at[word]


def throughputs(document: At, batches: Sequence[At], roster: Roster) -> list[Block]:
    """Describe throughput and ratio over the batch sizes.

    Args:
        document: the whole result.
        batches: two or more, growing.
        roster: the contestants' titles.
    """
    sizes = [batch["batch"].number() for batch in batches]
    rates = {name: [batch["contestants"][name]["images_per_s"] for batch in batches] for name in roster.titles}
    rates = {name: found for name, found in rates.items() if any(found)}
    lines = [
        Line(
            roster.title(name),
            [(size, at.number(), math.nan, math.nan) for size, at in zip(sizes, found, strict=True)],
            roster.slot(name),
        )
        for name, found in rates.items()
    ]
    plot = LinePlot(
        lines,
        at_values(sizes, log=True),
        linear([0, *(at.number() for found in rates.values() for at in found)]),
        title="Images per second over the batch",
        x="images per call",
        y="images per second",
    )
    rows: list[list[Cell]] = [
        [roster.name(name, line=True), *(Figure(at, "rate") for at in found), *_largest(document, name)]
        for name, found in rates.items()
    ]
    rows += [
        [f"ratio {roster.title(name)}", *(Figure(batch["ratios"][name]["value"], "ratio") for batch in batches), "", ""]
        for name in rates
        if document["contestants"][name]["kind"].value != "subset" and any(batch["ratios"][name] for batch in batches)
    ]
    columns = [
        Column("images per second"),
        *(Column(f"batch {batch['batch'].text()}") for batch in batches),
        Column("largest", only="page"),
        Column("still growing", only="page"),
    ]
    return [plot, Table("Images per second, and ratios to the shared pass", columns, rows)]


def _largest(document: At, name: str) -> list[Cell]:
    most = document["largest_throughput"][name]
    if not most:
        return ["", ""]
    growing = {True: "yes", False: "no"}.get(most["still_growing"].value, "n/a")
    return [Phrase([Figure(most["images_per_s"], "rate"), " at batch ", Figure(most["batch"], "count")]), growing]
