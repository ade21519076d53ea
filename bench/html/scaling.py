"""The report's sections on when sharing pays, and how the cost grows with threads and heads."""

from __future__ import annotations

import math

from mtl_deploy.bench.html.svg.axes import at_values, linear
from mtl_deploy.bench.html.svg.plots import Line, all_values, lines, points_of

from .elements import At, figure, interval, names_of, paragraph, slots, table, tag


def break_even(document: At) -> list[object]:
    """Return from how many tasks and from which batch sharing pays."""
    found = document["break_even"]
    content: list[object] = []
    if found["answer"]:
        content.append(paragraph(found["answer"].text(), class_="lead"))
    for word, name, column, unit in (
        ("tasks", "tasks", "tasks", "number of tasks"),
        ("batch", "batch", "batch", "images a call"),
    ):
        rows = list(found[word]["rows"])
        if not rows:
            continue
        x_of = [row[column] for row in rows]
        line = Line(
            "separate over shared",
            points_of([(x.number(), row["ratio"]) for x, row in zip(x_of, rows, strict=True)]),
            0,
        )
        content += [tag("h3", f"Over the {name}")]
        content.append(
            lines(
                [line],
                at_values([x.number() for x in x_of], log=word == "batch"),
                linear([1.0, *all_values([line])]),
                title=f"Separate over shared, over the {name}",
                x=unit,
                y="separate over shared",
                level=(1.0, "no difference"),
                level_right=True,
            )
        )
        flags = any(row["measured"].value is not None for row in rows)
        cells = [
            [figure(x, "count"), interval(row["ratio"], "ratio"), *([_origin(row)] if flags else [])]
            for x, row in zip(x_of, rows, strict=True)
        ]
        columns = [unit, "separate over shared", *(["from"] if flags else [])]
        content.append(table(f"Ratio over the {name}, with 95 % intervals", columns, cells))
    return content


def scaling(document: At) -> list[object]:
    """Return how the cost grows with threads, and with heads."""
    found = document["scaling"]
    return [*_threads(document, found["threads"]), *_heads(found["heads"])]


def _threads(document: At, found: At) -> list[object]:
    rows = list(found["rows"])
    if not rows:
        return []
    names, palette = names_of(document), slots(document)
    measured = list(dict.fromkeys(name for row in rows for name, _ in row["contestants"].items()))
    drawn = [
        Line(
            names.get(name, name),
            points_of([(row["threads"].number(), row["contestants"][name]["p50_ms"]) for row in rows]),
            palette.get(name, place),
        )
        for place, name in enumerate(measured)
    ]
    x_axis = at_values([row["threads"].number() for row in rows], log=True)
    plot = lines(
        drawn, x_axis, linear([0, *all_values(drawn)]), title="Latency over threads", x="threads", y="latency p50, ms"
    )
    cells = [
        [
            figure(row["threads"], "count"),
            *(interval(row["contestants"][name]["p50_ms"]) for name in measured),
            *(figure(row["contestants"][name]["images_per_s"]) for name in measured),
            interval(row["ratio"], "ratio"),
        ]
        for row in rows
    ]
    titles = [names.get(name, name) for name in measured]
    columns = [
        "threads",
        *(f"{t}, p50, ms" for t in titles),
        *(f"{t}, images a second" for t in titles),
        "ratio",
    ]
    return [
        tag("h3", "Over threads"),
        plot,
        table("Latency and ratio over threads, with 95 % intervals", columns, cells),
    ]


def _heads(found: At) -> list[object]:
    rows = list(found["rows"])
    if not rows:
        return []
    counts = [row["heads"].number() for row in rows]
    fit = found["fit"]
    backbone, head, model = (fit[word].number() for word in ("backbone_ms", "head_ms", "model_ms"))
    drawn = []
    if not any(map(math.isnan, (backbone, head, model))):
        drawn += [
            Line(
                "backbone + n heads, fit",
                [(n, backbone + n * head, math.nan, math.nan) for n in counts],
                0,
                marks=False,
            ),
            Line("n times both, fit", [(n, n * model, math.nan, math.nan) for n in counts], 1, marks=False),
        ]
    measured = (("shared, measured", "shared_ms"), ("separate, measured", "separate_ms"))
    drawn += [
        Line(name, points_of([(row["heads"].number(), row[word]) for row in rows]), place, joined=False)
        for place, (name, word) in enumerate(measured)
    ]
    plot = lines(
        drawn,
        at_values(counts, log=False),
        linear([0, *all_values(drawn)]),
        title="Cost over the number of heads",
        x="heads",
        y="time of a call, ms",
    )
    cells = [
        [
            figure(row["heads"], "count"),
            interval(row["shared_ms"]),
            interval(row["separate_ms"]),
            interval(row["ratio"], "ratio"),
            figure(row["ideal"], "ratio"),
        ]
        for row in rows
    ]
    columns = ["heads", "shared, ms", "separate, ms", "ratio", "ideal"]
    content: list[object] = [
        tag("h3", "Over heads"),
        plot,
        table("Cost over the number of heads, with 95 % intervals", columns, cells),
    ]
    if fit:
        content.append(
            paragraph(
                "Fit: shared = ",
                figure(fit["backbone_ms"]),
                " ms + n \u00d7 ",
                figure(fit["head_ms"]),
                " ms; separate = n \u00d7 ",
                figure(fit["model_ms"]),
                " ms; largest residual ",
                figure(fit["largest_residual"]),
                " ms",
                *([" (", figure(share, "percent"), ")"] if (share := fit["largest_residual_share"]) else []),
                ".",
            )
        )
    return content


def _origin(row: At) -> str:
    """Return what a number of tasks' ratio comes from."""
    if row["measured"].value:
        return "measured"
    return "model" if row["beyond"].value else "differences"
