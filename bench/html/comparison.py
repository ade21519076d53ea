"""The report's first sections: who is faster, how latencies are spread, and throughput over the batch."""

from __future__ import annotations

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.html.svg.canvas import key
from mtl_deploy.bench.html.svg.plots import Ridge, RidgePlot, draw, sampled
from mtl_deploy.bench.results.tables import contestants, throughputs

from .elements import Markup, by_batch, figure, interval, join, paragraph, table, tag
from .from_blocks import rendered

_QUANTILES = ("p50", "p90", "p99")


def comparison(document: At) -> list[object]:
    """Return each contestant's time over the shared pass's."""
    roster = Roster(document)
    found = by_batch(document, lambda batch: rendered(contestants(document, batch, roster)))
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
        [paragraph("Separate over shared, counted from the files: ", join(allowed, ", "), ".", class_="note")]
        if allowed
        else []
    )
    return [paragraph(lead, class_="lead"), *found, *note]


def latency(document: At) -> list[object]:
    """Return how calls' latencies are spread, and their quantiles."""
    found = by_batch(document, lambda batch: _latency(document, batch))
    lead = "One call, from a batch in host memory to all tasks' outputs in host memory."
    return [paragraph(lead, class_="lead"), *found] if found else []


def _latency(document: At, batch: At) -> list[object]:
    roster = Roster(document)
    contestants = batch["contestants"].items()
    content: list[object] = [draw(plot) for plot in ridges(batch, roster)]
    rows = [
        [
            key(roster.title(name), roster.slot(name)),
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
            " round" if rounds.value == 1 else " rounds",
            " in " if processes.value == 1 else " over ",
            figure(processes, "count"),
            " process." if processes.value == 1 else " processes.",
        ]
        content.append(paragraph(*ran, class_="note"))
    return content


def ridges(batch: At, roster: Roster) -> list[RidgePlot]:
    """Return the plot of how the calls of a batch size are spread; none where their samples are missing."""
    samples = [(name, at, sampled(at["samples_ms"].value)) for name, at in batch["contestants"].items()]
    rows = [
        Ridge(roster.title(name), calls, at["latency_ms"], roster.slot(name))
        for name, at, calls in samples
        if len(calls)
    ]
    return [RidgePlot(rows, f"Latencies of single calls, batch {batch['batch'].text()}")] if rows else []


def throughput(document: At) -> list[object]:
    """Return images per second over the batch; nothing where one batch was measured."""
    batches = list(document["batches"])
    if len(batches) < 2:
        return []
    answer = document["answer"].text()
    other = answer and answer not in [one["answer"].value for one in batches]
    said = [paragraph(answer, class_="note")] if other else []
    return [*said, *rendered(throughputs(document, batches, Roster(document)))]


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
