"""The report's sections on latency under load, on starting, and on what a GPU does inside a call."""

from __future__ import annotations

from mtl_deploy.bench.html.svg.axes import at_values, linear
from mtl_deploy.bench.html.svg.canvas import key
from mtl_deploy.bench.html.svg.plots import Line, all_values, lines, points_of, stacks

from .elements import At, by_batch, figure, interval, join, names_of, paragraph, shown, slots, table, tag

_PHASES = {"python": "Python", "imports": "imports", "load": "loading", "first_prediction": "first prediction"}


def open_loop(document: At) -> list[object]:
    """Return latency over the rate of requests."""
    return by_batch(document, lambda batch: _open_loop(document, batch))


def _open_loop(document: At, batch: At) -> list[object]:
    found, names, palette = batch["open_loop"], names_of(document), slots(document)
    contestants = [(name, at) for name, at in found["contestants"].items() if at["rates"]]
    if not contestants:
        return []
    deadline = found["deadline_ms"]
    drawn = []
    for name, at in contestants:
        rates = [rate for rate in at["rates"] if rate["latency_ms"]["p99"]]
        hollow = frozenset(place for place, rate in enumerate(rates) if rate["sustained"].value is False)
        points = points_of([(rate["rate_per_s"].number(), rate["latency_ms"]["p99"]) for rate in rates])
        drawn.append(Line(names.get(name, name), points, palette.get(name, 0), hollow=hollow))
    content: list[object] = [
        paragraph(
            f"Requests arrive on their own ({found['process'].text()}), whether or not the last one is done; a latency counts from "
            "the arrival.",
            class_="lead",
        )
    ]
    rates_at = [point[0] for line in drawn for point in line.points]
    if rates_at:
        limit = deadline.number()
        level = (limit, f"deadline {shown(limit, 'plain')} ms") if deadline else None
        # a rate that is not sustained grows without bound: the axis ends where the deadline can still be read
        values = [*all_values(drawn), limit]
        sustained = [
            number
            for line in drawn
            for place, point in enumerate(line.points)
            if place not in line.hollow
            for number in point[1:]
        ]
        most = max([*sustained, limit] if deadline else sustained or values, default=1.0)
        content.append(
            lines(
                drawn,
                at_values(rates_at, log=False) if len(set(rates_at)) == 1 else linear([0, *rates_at]),
                linear([0, *(min(value, 1.5 * most) for value in values)]),
                title=f"Latency under load, batch {batch['batch'].text()}",
                x="requests a second",
                y="latency p99, ms",
                level=level,
                caption="Hollow marks: rates that were not sustained; what is higher than the axis stands at its end.",
            )
        )
    highest = [
        [key(names.get(name, name), palette.get(name, 0), line=True), figure(at["highest_rate_per_s"])]
        for name, at in contestants
    ]
    if any(at["highest_rate_per_s"] for _, at in contestants):
        within = (
            join(["Highest rate that keeps p99 within ", figure(deadline, "plain"), " ms"])
            if deadline
            else "Highest rate that is sustained"
        )
        content.append(table(within, ["", "requests a second"], highest))
    rows = [
        [
            key(names.get(name, name), palette.get(name, 0), line=True),
            figure(rate["rate_per_s"]),
            *(interval(rate["latency_ms"][word]) for word in ("p50", "p90", "p99")),
            figure(rate["utilisation"], "percent"),
            figure(rate["calls"], "count"),
            _yes(rate["sustained"]),
            *([_yes(rate["meets_deadline"])] if deadline else []),
        ]
        for name, at in contestants
        for rate in at["rates"]
    ]
    columns = ["", "requests a second", "p50, ms", "p90, ms", "p99, ms", "utilisation", "calls", "sustained"]
    columns += ["in time"] if deadline else []
    content.append(table("Latency under load, with 95 % intervals", columns, rows))
    return content


def cold_start(document: At) -> list[object]:
    """Return the time from a process's start to its first prediction."""
    found, names, palette = document["cold_start"], names_of(document), slots(document)
    contestants = found["contestants"].items()
    if not contestants:
        return []
    phases = list(dict.fromkeys(phase for _, at in contestants for phase, _ in at["phases_ms"].items()))
    bars = [
        (names.get(name, name), [(_PHASES.get(p, p), at["phases_ms"][p], place) for place, p in enumerate(phases)])
        for name, at in contestants
    ]
    rows = [
        [
            key(names.get(name, name), palette.get(name, 0)),
            interval(at["total_ms"]),
            *(figure(at["phases_ms"][phase]) for phase in phases),
            figure(at["starts"], "count"),
        ]
        for name, at in contestants
    ]
    columns = ["", "total, ms", *(f"{_PHASES.get(p, p)}, ms" for p in phases), "starts"]
    content: list[object] = [paragraph("From the process's start to its first prediction.", class_="lead")]
    if phases:
        content.append(stacks(bars, title="Cold start, by phase", unit="ms", show="number"))
    content.append(table("Cold start: total with its 95 % interval, phases as medians", columns, rows))
    if found["ratio"]:
        content.append(paragraph("Separate over shared: ", interval(found["ratio"], "ratio"), "."))
    return content


def engine_timings(document: At) -> list[object]:
    """Return what CUDA events say of a call, in trtexec's words."""
    return by_batch(document, lambda batch: _engine_timings(document, batch))


def _engine_timings(document: At, batch: At) -> list[object]:
    found, names, palette = batch["engine_timings"], names_of(document), slots(document)
    columns = found["names"].items()
    rows: list[list[object]] = []
    for side, ways in found["sides"].items():
        for way in ways.values():
            transfers = way["transfers"].value
            how = (
                f"{'with' if transfers else 'no'} transfers, {'CUDA graph' if way['cuda_graph'].value else 'no graph'}"
            )
            parts = [
                figure(way["median_ms"][part])
                if transfers or part not in ("h2d", "d2h")
                else tag("span", "n/a", class_="na")
                for part, _ in columns
            ]
            rows.append([key(names.get(side, side), palette.get(side, 0)), how, *parts, figure(way["calls"], "count")])
    if not rows:
        return []
    titles = ["", "way", *(title.text() for _, title in columns), "calls"]
    content: list[object] = [table("On the GPU's clock: medians in milliseconds", titles, rows)]
    if found["graphs_off"]:
        content.append(paragraph("No CUDA graphs: ", found["graphs_off"].text(), ".", class_="note"))
    return content


def _yes(at: At) -> object:
    word = {True: "yes", False: "no"}.get(at.value, "n/a")
    return tag("span", word, class_="bad") if word == "no" else join([word])
