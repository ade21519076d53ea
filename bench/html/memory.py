"""The page's section on what files and memory a contestant takes."""

from __future__ import annotations

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.html.svg.canvas import key

from .elements import by_batch, figure, table


def memory(document: At) -> list[object]:
    """Return the size of the files, and the memory that they take when they run."""
    roster = Roster(document)
    kinds = (
        ("size_bytes", "size on disk, MB", "MB"),
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
    words = (
        ("peak", "peak, MB"),
        ("models", "for models, MB"),
        ("libraries", "for libraries, MB"),
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
            rows.append([key(roster.title(name), roster.slot(name)), *cells])
    if not rows:
        return []
    columns = ["", *(title for _, title in known), *(["activations, MB"] if activations else [])]
    return [table("Memory of a process that loads and runs it", columns, rows)]
