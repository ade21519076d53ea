"""The report's first sections: who is faster, how latencies are spread, and throughput over the batch."""

from __future__ import annotations

import math

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import at_values, for_factors, linear
from mtl_deploy.bench.blocks.plots import Dot, IntervalPlot, Line, LinePlot
from mtl_deploy.bench.html.svg.canvas import key
from mtl_deploy.bench.html.svg.plots import Ridge, distributions, draw, sampled
from mtl_deploy.bench.statistics.nested import Interval

from .elements import Markup, by_batch, figure, interval, join, names_of, paragraph, slots, table, tag

_QUANTILES = ("p50", "p90", "p99")


def comparison(document: At) -> list[object]:
    """Return each contestant's time over the shared pass's."""
    found = by_batch(document, lambda batch: _ratios(document, batch))
    if not found:
        return []
    lead = "How many times the shared pass's time each of the others takes. Right of the line at 1: sharing is faster."
    ideal = document["ideal"]
    allowed = [
        join([name, " ", figure(ideal[word], "ratio")])
        for word, name in (("multiply_adds", "multiply-adds"), ("bytes", "bytes"))
        if ideal[word]
    ]
    note = (
        [paragraph("Separate over shared, counted in the files: ", join(allowed, ", "), ".", class_="note")]
        if allowed
        else []
    )
    return [paragraph(lead, class_="lead"), *found, *note]


def _ratios(document: At, batch: At) -> list[object]:
    rows = [(name, at) for name, at in batch["ratios"].items() if at["value"]]
    if not rows:
        return []
    names, palette = names_of(document), slots(document)
    dots = [Dot(names.get(name, name), at, palette.get(name, 0), verdict(at)) for name, at in rows]
    axis = for_factors([number for _, at in rows for number in at.numbers()])
    title = f"Time over the shared pass's, batch {batch['batch'].text()}"
    unit = "ratio to the shared pass" + (", logarithmic" if axis.log else "")
    plot = draw(IntervalPlot(dots, axis, title, unit, "ratio", mark=1.0))
    cells = [
        [
            key(names.get(name, name), palette.get(name, 0)),
            interval(at, "ratio"),
            tag("span", verdict(at), class_="same" if verdict(at) == "no difference" else None),
        ]
        for name, at in rows
    ]
    return [
        plot,
        table("Time over the shared pass's, with 95 % intervals", ["", "ratio", "the shared pass is"], cells),
    ]


def verdict(at: At) -> str:
    """Say what a ratio to the shared pass means, as the answer does."""
    value, low, high = at.numbers()
    if at["difference"].value is False or Interval(value, low, high).contains(1):
        return "no difference"
    return "faster" if value > 1 else "slower"


def latency(document: At) -> list[object]:
    """Return how calls' latencies are spread, and their quantiles."""
    found = by_batch(document, lambda batch: _latency(document, batch))
    lead = "One call, from a batch in host memory to all tasks' outputs in host memory."
    return [paragraph(lead, class_="lead"), *found] if found else []


def _latency(document: At, batch: At) -> list[object]:
    names, palette = names_of(document), slots(document)
    contestants = batch["contestants"].items()
    samples = {name: sampled(at["samples_ms"].value) for name, at in contestants}
    ridges = [
        Ridge(names.get(name, name), samples[name], at["latency_ms"], palette.get(name, 0))
        for name, at in contestants
        if len(samples[name])
    ]
    content: list[object] = []
    if ridges:
        content.append(distributions(ridges, title=f"Latencies of single calls, batch {batch['batch'].text()}"))
    rows = [
        [
            key(names.get(name, name), palette.get(name, 0)),
            *(interval(at["latency_ms"][word]) for word in ("mean", *_QUANTILES)),
            figure(at["images_per_s"]),
            figure(at["calls"], "count"),
            figure(at["round_spread"], "percent"),
        ]
        for name, at in contestants
    ]
    if rows:
        columns = ["", "mean, ms", "p50, ms", "p90, ms", "p99, ms", "images per second", "calls", "spread of rounds"]
        content.append(
            table("Latency in milliseconds with 95 % intervals; n/a: too few calls to bound it", columns, rows)
        )
    if (processes := batch["processes"]) and (rounds := batch["rounds"]):
        ran = [
            "Measured in turn: ",
            figure(rounds, "count"),
            " rounds in each of ",
            figure(processes, "count"),
            " processes.",
        ]
        content.append(paragraph(*ran, class_="note"))
    return content


def throughput(document: At) -> list[object]:
    """Return images per second over the batch; nothing where one batch was measured."""
    batches = list(document["batches"])
    if len(batches) < 2:
        return []
    names, palette = names_of(document), slots(document)
    sizes = [batch["batch"].number() for batch in batches]
    measured = {name: [batch["contestants"][name]["images_per_s"] for batch in batches] for name in names}
    measured = {name: rates for name, rates in measured.items() if any(rates)}
    drawn = [
        Line(
            names[name],
            [(x, at.number(), math.nan, math.nan) for x, at in zip(sizes, rates, strict=True)],
            palette[name],
        )
        for name, rates in measured.items()
    ]
    x_axis = at_values(sizes, log=True)
    y_axis = linear([0, *(at.number() for rates in measured.values() for at in rates)])
    plot = draw(
        LinePlot(
            drawn,
            x_axis,
            y_axis,
            title="Images per second over the batch",
            x="images per call",
            y="images per second",
        )
    )
    largest = document["largest_throughput"]
    columns = ["", *(tag("span", "batch ", figure(batch["batch"], "count")) for batch in batches)]
    columns += ["largest", "still growing"] if largest else []
    rows: list[list[object]] = []
    for name, rates in measured.items():
        row: list[object] = [key(names[name], palette[name], line=True), *map(figure, rates)]
        if largest:
            most = largest[name]
            row.append(
                join([figure(most["images_per_s"]), " at batch ", figure(most["batch"], "count")]) if most else ""
            )
            row.append({True: "yes", False: "no"}.get(most["still_growing"].value, "n/a"))
        rows.append(row)
    answer = document["answer"].text()
    said = (
        paragraph(answer, class_="note") if answer and answer not in [one["answer"].value for one in batches] else None
    )
    return [said, plot, table("Images per second", columns, rows)]


def tiles(document: At) -> Markup | None:
    """Return the few figures that stand on top: of the first batch."""
    batches = list(document["batches"])
    if not batches:
        return None
    batch = batches[0]
    found: list[Markup] = []

    def tile(word: str, number: Markup, unit: str, under: Markup | None = None) -> None:
        below = tag("span", under, class_="under") if under else None
        found.append(tag("div", tag("dt", word), tag("dd", number, tag("small", unit) if unit else None, below)))

    ratio = batch["ratios"]["separate"]
    if ratio["value"]:
        ends = join([figure(ratio["low"], "ratio"), " to ", figure(ratio["high"], "ratio")])
        tile("separate over shared", figure(ratio["value"], "ratio"), " \u00d7", ends)
    for name in ("shared", "separate"):
        latency_ms = batch["contestants"][name]["latency_ms"]
        word, at = next(((w, latency_ms[w]) for w in ("p50", "mean") if latency_ms[w]), ("", At(None)))
        if at:
            ends = join([figure(at["low"]), " to ", figure(at["high"])])
            tile(f"{name}, {word}", figure(at["value"]), " ms", ends)
    if batch["of_ideal"]:
        allow = document["ideal"]["multiply_adds"]
        under = join(["multiply-adds allow ", figure(allow, "ratio"), " \u00d7"]) if allow else None
        tile("of the ideal", figure(batch["of_ideal"], "percent"), "", under)
    if not found:
        return None
    return tag("dl", *found, class_="tiles", aria_label=f"batch {batch['batch'].text()}")
