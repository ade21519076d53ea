"""The report's head and its last sections: what was measured where, and how to measure it again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.html.svg.canvas import key
from mtl_deploy.bench.results.tables import gathered_warnings

from .elements import Markup, bullets, figure, join, paragraph, table, tag, text
from .quality import words

_WORDS = {
    "gpu": "GPU",
    "mtl_deploy": "mtl-deploy",
    "python": "Python",
    "cuda_graphs": "CUDA graphs",
    "duration_s": "duration, s",
    "load_before": "load before",
    "compute_capability": "compute capability",
}
_WIDE = ("machine", "GPU", "library")
_GIGABYTE = 1e9
_UNITS = (
    ("_mhz", ", MHz"),
    ("_celsius", ", \u00b0C"),
    ("_c", ", \u00b0C"),
    ("_bytes", ""),  # the figure has its unit
    ("_ms", ", ms"),
    ("_s", ", s"),
)


def facts(document: At) -> Markup:
    """Return what was measured where, in a few words."""
    bundle, settings, machine = document["bundle"], document["settings"], document["environment"]
    batches = join([figure(batch["batch"], "count") for batch in document["batches"]], ", ")
    size = bundle["input"]
    graphs = settings["cuda_graphs"]
    threads: object = "default" if not settings["threads"] else figure(settings["threads"], "count")
    found: list[tuple[str, object]] = [
        ("tasks", ", ".join(task.text() for task in bundle["tasks"])),
        ("input", join([figure(one, "count") for one in size], " \u00d7 ") if size else None),
        ("precision", document["precision"].text()),
        ("batch", batches),
    ]
    if document["backend"].value == "tensorrt":
        found.append(("CUDA graphs", {True: "on", False: "off"}.get(graphs.value, "n/a")))
    else:
        found.append(("threads", threads))
    gpu = machine["gpu"]
    found += [
        ("machine", machine["processor"].text(machine["machine"].text())),
        ("usable cores", figure(machine["usable_cores"], "count") if machine["usable_cores"] else None),
        ("GPU", gpu["name"].text(gpu.text()) if gpu and isinstance(gpu.value, (Mapping, str)) else None),
        ("library", document["details"].text()),
    ]
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", text(value)), class_="wide" if name in _WIDE else None)
            for name, value in found
            if value
        ),
        class_="facts",
    )


def warnings(document: At) -> Markup | None:
    """Return what casts doubt on the figures; of each batch too."""
    texts = gathered_warnings(document, "warnings")
    if not texts:
        return None
    heading = "1 warning" if len(texts) == 1 else f"{len(texts)} warnings"
    return tag("aside", tag("h2", heading), bullets(texts), class_="warnings", aria_label="warnings")


def contestants(document: At) -> list[object]:
    """Return who was measured, with which files."""
    roster = Roster(document)
    rows = [
        [
            key(roster.title(name), roster.slot(name)),
            tag("code", name),
            one["precision"].text(),
            one["details"].text(),
            ", ".join(path.text() for path in one["artifacts"]),
        ]
        for name, one in document["contestants"].items()
    ]
    columns = ["", "name", "precision", "library", "files"]
    return [words(table("Contestants", columns, rows))] if rows else []


def environment(document: At) -> list[object]:
    """Return the machine, as far as the system reports it, before and after the measurement."""
    found = document["environment"]
    before, after = found["before"], found["after"]
    told = [(name, at) for name, at in _flat(found) if name.split(" \u00b7 ")[0] not in ("before", "after")]
    rows = [[word(name), _value(at)] for name, at in told if at.value is not None]
    unknown = [word(name) for name, at in told if at.value is None]
    content: list[object] = []
    if rows:
        content.append(words(table("Machine and versions", ["", "value"], rows)))
    if unknown:
        content.append(paragraph(f"The system did not report: {', '.join(unknown)}.", class_="note"))
    if before or after:
        earlier, later = dict(_flat(before)), dict(_flat(after))
        changed = [
            [word(name), *(_value(side[name]) if name in side else "" for side in (earlier, later))]
            for name in dict.fromkeys([*earlier, *later])
        ]
        content.append(words(table("State of the machine", ["", "before", "after"], changed)))
    return content


def settings(document: At) -> list[object]:
    """Return how it was run."""
    rows = [[word(name), _value(at)] for name, at in _flat(document["settings"])]
    rows.append(["seed", _value(document["seed"])])
    return [words(table("Settings", ["", "value"], rows))]


def command(document: At) -> list[object]:
    """Return the command that measures it again."""
    if not document["command"]:
        return []
    return [
        paragraph("This reproduces the measurement; one click or tap selects it.", class_="lead"),
        tag("pre", tag("code", text(document["command"].text())), tabindex="0"),
    ]


def date(document: At) -> Markup | None:
    """Return when it was measured, as people write it."""
    created = document["created"].text()
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return tag("span", created) if created else None
    zone = (when.strftime("%Z") if when.tzinfo else "").replace("UTC+00:00", "UTC")
    return tag("time", f"{when.day} {when:%B %Y, %H:%M} {zone}".strip(), datetime=created)


def word(name: str) -> str:
    """Return a key as people write it: its unit behind a comma."""
    parts = []
    for part in name.split(" \u00b7 "):
        unit = next(((end, text) for end, text in _UNITS if part.endswith(end)), None)
        known = _WORDS.get(part)
        parts.append(known or (part[: -len(unit[0])] + unit[1] if unit else part).replace("_", " "))
    return " \u00b7 ".join(parts)


def _flat(at: At, prefix: str = "") -> Iterator[tuple[str, At]]:
    for key_, value in at.items():
        name = f"{prefix}{key_}"
        if isinstance(value.value, Mapping) and value.value:
            yield from _flat(value, f"{name} \u00b7 ")
        elif isinstance(value.value, list) and any(isinstance(one, Mapping) for one in value.value):
            for one in value:
                yield from _flat(one, f"{name} \u00b7 {re.sub(r'.*/', '', one.path)} \u00b7 ")
        else:
            yield name, value


def _value(at: At) -> object:
    value: Any = at.value
    if value is None:
        return tag("span", "not known", class_="na")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return join([_value(one) for one in at], ", ") if value else "none"
    if at.path.endswith("_bytes"):
        return figure(at, "gigabytes" if at.number() >= _GIGABYTE else "megabytes")
    return figure(at, "plain")
