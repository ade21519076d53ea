"""The report's sections on what a call is made of, and what it takes: backbone and heads, memory, energy."""

from __future__ import annotations

from mtl_deploy.bench.html.svg.axes import linear
from mtl_deploy.bench.html.svg.canvas import key
from mtl_deploy.bench.html.svg.plots import Dot, intervals, stacks

from .elements import At, bullets, by_batch, figure, interval, join, names_of, paragraph, slots, table


def where(document: At) -> list[object]:
    """Return the shares of backbone and heads, their check, and what is lost to the ideal."""
    return by_batch(document, _where)


def _where(batch: At) -> list[object]:
    found = batch["where"]
    parts = list(found["parts"])
    if not parts:
        return []
    named = [(part["name"].text(), part["share"], place) for place, part in enumerate(parts)]
    title = f"Where the shared pass's time goes, batch {batch['batch'].text()}"
    plot = stacks([("the shared pass", named)], title=title, unit="share of the time, %", show="percent")
    ends = {part["name"].text(): part["ms"] for part in found["end_to_end"]["parts"]}
    rows: list[list[object]] = []
    for name, share, place in named:
        row: list[object] = [key(name, place), interval(parts[place]["ms"]), figure(share, "percent")]
        if ends:
            row.append(interval(ends[name]) if name in ends else "")
        rows.append(row)
    left = [name for name in ends if name not in {name for name, _, _ in named}]
    rows += [[name, "", "", interval(ends[name])] for name in left]
    columns = ["part", "time, ms", "share", *(["end to end, ms"] if ends else [])]
    source = (
        [found["source"].text(), ", ", figure(found["calls"], "count"), " calls"]
        if found["calls"]
        else [found["source"].text()]
    )
    content: list[object] = [
        paragraph("Source: ", *source, ".", class_="note"),
        plot,
        table("Parts of the shared pass, with 95 % intervals", columns, rows),
    ]
    check = found["end_to_end"]
    if check:
        agrees = "agrees with" if check["agrees"].value else "does not agree with"
        content.append(
            paragraph(
                f"The profile {agrees} what the shared pass with fewer tasks takes end to end: largest difference ",
                figure(check["largest_difference"], "percent"),
                " of a call.",
                class_=None if check["agrees"].value else "bad",
            )
        )
    lost = found["lost"]
    if lost:
        content.append(
            paragraph(
                "The multiply-adds allow a ratio of ",
                figure(lost["ideal"], "ratio"),
                *([", measured was ", figure(lost["measured"], "ratio")] if lost["measured"] else []),
                ".",
            )
        )
        content.append(bullets([reason.text() for reason in lost["reasons"]]))
    operators = [
        [
            join([part["name"].text(), ": ", operator["type"].text()]),
            figure(operator["ms"]),
            figure(operator["share"], "percent"),
        ]
        for part in parts
        for operator in part["operators"]
    ]
    if operators:
        content.append(table("The largest operators of each part", ["operator", "time, ms", "share"], operators))
    return content


def memory(document: At) -> list[object]:
    """Return the size of the files, and the memory that they take when they run."""
    names, palette = names_of(document), slots(document)
    kinds = (
        ("size_bytes", "size on disk, MB", "MB"),
        ("parameters", "parameters, M", "M"),
        ("multiply_adds", "multiply-adds, G", "G"),
    )
    known = [kind for kind in kinds if any(one[kind[0]] for _, one in document["contestants"].items())]
    content: list[object] = []
    if known:
        rows = [
            [key(names[name], palette[name]), *(figure(one[word], show) for word, _, show in known)]
            for name, one in document["contestants"].items()
            if any(one[word] for word, _, _ in known)
        ]
        content.append(
            table("Files, summed over those that a contestant runs", ["", *(title for _, title, _ in known)], rows)
        )
    return content + by_batch(document, lambda batch: _memory(document, batch))


def _memory(document: At, batch: At) -> list[object]:
    names, palette = names_of(document), slots(document)
    words = (
        ("peak", "peak, MB"),
        ("models", "of it models, MB"),
        ("libraries", "of it libraries, MB"),
        ("gpu", "GPU, MB"),
    )
    contestants = batch["contestants"].items()
    known = [word for word in words if any(at["memory_bytes"][word[0]] for _, at in contestants)]
    activations = any(at["activation_bytes"] for _, at in contestants)
    rows = []
    for name, at in contestants:
        cells = [figure(at["memory_bytes"][word], "MB") for word, _ in known]
        cells += [figure(at["activation_bytes"], "MB")] if activations else []
        if at["memory_bytes"] or at["activation_bytes"]:
            rows.append([key(names.get(name, name), palette.get(name, 0)), *cells])
    if not rows:
        return []
    columns = ["", *(title for _, title in known), *(["activations, MB"] if activations else [])]
    return [table("Memory of a process that loads and runs it", columns, rows)]


def energy(document: At) -> list[object]:
    """Return the energy that an image takes, of each meter."""
    return by_batch(document, lambda batch: _energies(document, batch))


def _energies(document: At, batch: At) -> list[object]:
    meters = [batch["energy"], *batch["energy"]["further"]]
    return [part for meter in meters for part in _energy(document, batch, meter)]


def _energy(document: At, batch: At, found: At) -> list[object]:
    names, palette = names_of(document), slots(document)
    contestants = found["contestants"].items()
    if not contestants:
        return []
    dots = [Dot(names.get(name, name), at["joules_per_image"], palette.get(name, 0)) for name, at in contestants]
    axis = linear([0, *(number for dot in dots for number in dot.at.numbers())])
    meter = ", ".join(text for text in (found["source"].text(), found["domain"].text()) if text)
    rows = [
        [
            key(names.get(name, name), palette.get(name, 0)),
            interval(at["joules_per_image"]),
            figure(at["watts"]),
            figure(at["seconds"]),
        ]
        for name, at in contestants
    ]
    idle = ["; idle: ", figure(found["idle_watts"]), " W"] if found["idle_watts"] else []
    title = f"Energy of an image, batch {batch['batch'].text()}, {meter}"
    return [
        intervals(dots, axis, title=title, unit="joules an image", show="number"),
        table("Energy with 95 % intervals", ["", "joules an image", "watts", "seconds measured"], rows),
        paragraph("Read from ", meter, *idle, ".", class_="note"),
    ]
