"""The page's section on what files and memory a contestant takes."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.html.svg.canvas import key

from .elements import by_batch, figure, table

_MANY = 10e9  # bytes


def memory(document: At) -> list[object]:
    """Return the size of the files, and the memory that they take when they run."""
    roster = Roster(document)
    kinds = (
        ("size_bytes", *_in("size on disk", [one["size_bytes"] for _, one in document["contestants"].items()])),
        ("parameters", "parameters, M", "M"),
        ("multiply_adds", "multiply-adds, G", "G"),
    )
    known = [kind for kind in kinds if any(one[kind[0]] for _, one in document["contestants"].items())]
    content: list[object] = []
    if known:
        rows = [
            [key(roster.title(name), roster.slot(name)), *(figure(one[word], show) for word, _, show in known)]
            for name, one in document["contestants"].items()
            if any(one[word] for word, _, _ in known)
        ]
        content.append(
            table("Files, summed over those that a contestant runs", ["", *(title for _, title, _ in known)], rows)
        )
    return content + by_batch(document, lambda batch: _memory(document, batch))


def _memory(document: At, batch: At) -> list[object]:
    roster = Roster(document)
    words = (("peak", "peak"), ("models", "for models"), ("libraries", "for libraries"), ("gpu", "GPU"))
    contestants = batch["contestants"].items()
    places = [(title, [at["memory_bytes"][word] for _, at in contestants]) for word, title in words]
    places.append(("activations", [at["activation_bytes"] for _, at in contestants]))
    known = [(*_in(title, found), found) for title, found in places if any(found)]
    rows = [
        [key(roster.title(name), roster.slot(name)), *(figure(found[place], show) for _, show, found in known)]
        for place, (name, at) in enumerate(contestants)
        if at["memory_bytes"] or at["activation_bytes"]
    ]
    columns = ["", *(title for title, _, _ in known)]
    return [table("Memory of a process that loads and runs it", columns, rows)] if rows else []


def _in(title: str, found: Sequence[At]) -> tuple[str, str]:
    """Return a column's title with its unit, and how its bytes are shown: in GB from ten on."""
    unit = "GB" if any(at.number() >= _MANY for at in found) else "MB"
    return f"{title}, {unit}", unit
