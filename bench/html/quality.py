"""The report's sections on whether outputs are right: accuracy, verification, agreement, and who was left out."""

from __future__ import annotations

import math

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Roster
from mtl_deploy.bench.blocks.kinds import counted

from .elements import Markup, by_batch, figure, join, paragraph, table, tag
from .metrics import described


def accuracy(document: At) -> list[object]:
    """Return each task's metrics at each precision, and what it loses, as the manifest has them."""
    cells = list(document["accuracy"]["cells"])
    if not cells:
        return []
    variants = list(dict.fromkeys(cell["variant"].text() for cell in cells))
    tasks = list(dict.fromkeys(cell["task"].text() for cell in cells))
    found = {(cell["task"].text(), cell["variant"].text()): cell for cell in cells}
    missing = At({})
    metrics, lost = [], []
    for task in tasks:
        own = [found.get((task, variant), missing) for variant in variants]
        first = next(cell for cell in own if cell)
        classes = any(cell["agreement"].value is not None for cell in own)
        unit = "" if classes else first["unit"].text()
        words = list(dict.fromkeys(word for cell in own for word, _ in cell["metrics"].items()))
        for word in words:
            name, form = described(word, classes=classes)
            behind = "%" if form == "share" else unit if form == "unit" else ""
            show = "share" if form == "share" else "number"
            label = f"{task}: {name}{', ' if behind else ''}{behind}"
            metrics.append([label, *(figure(cell["metrics"][word], show) for cell in own)])
        if classes:
            metrics.append(
                [f"{task}: same answer as {variants[0]}, %", *(figure(cell["agreement"], "share") for cell in own)]
            )
        else:
            label = f"{task}: mean difference from {variants[0]}{', ' if unit else ''}{unit}"
            metrics.append([label, *(figure(cell["mean_error"], "error") for cell in own)])
        if any(cell["drop"].value is not None for cell in own[1:]):
            form = described(words[0], classes=classes)[1] if words else "share" if classes else "unit"
            kind, word = ("points", "points") if form == "share" else ("signed", unit if form == "unit" else "")
            lost.append([task, word, *(_drop(cell, kind) for cell in own[1:])])
    samples = sorted({cell["samples"].value for cell in cells if cell["samples"]})
    count = (
        counted(samples[0], "image")
        if len(samples) == 1
        else f"{samples[0]:,} to {counted(samples[-1], 'image')}"
        if samples
        else ""
    )
    content: list[object] = [
        paragraph(f"From the bundle's manifest{', ' if count else ''}{count}.", class_="lead"),
        table("Each task at each precision", ["", *variants], metrics),
    ]
    if lost:
        caption = f"Lost against {variants[0]}, with 95 % intervals; negative: gained"
        content.append(table(caption, ["task", "unit", *variants[1:]], lost))
    return content


def _drop(cell: At, show: str) -> object:
    if cell["drop"].value is None:
        return tag("span", "n/a", class_="na")
    low, high = cell["drop_low"], cell["drop_high"]
    ends = tag("span", figure(low, show), " to ", figure(high, show), class_="ci")
    same = low.number() <= 0 <= high.number()
    verdict = tag("span", "no difference", class_="ci") if same else None
    return join([figure(cell["drop"], show), " ", ends, " " if same else None, verdict])


def verification(document: At) -> list[object]:
    """Return how each file differs from the PyTorch network; as the manifest has it."""
    rows = [
        [
            row["artifact"].text(),
            row["task"].text(),
            _against(row["max_error"] if row["error"].value is None else row["error"], row["tolerance"]),
            figure(row["tolerance"], "error"),
            figure(row["max_error"], "error"),
            figure(row["mean_error"], "error"),
            _against(row["logit_error"], row["logit_tolerance"]),
            figure(row["logit_tolerance"], "error"),
            figure(row["agreement"], "percent"),
            figure(row["samples"], "count"),
        ]
        for row in document["verification"]
    ]
    if not rows:
        return []
    columns = [
        "file",
        "task",
        "error",
        "allowed",
        "largest error",
        "mean error",
        "of logits",
        "allowed",
        "same class",
        "images",
    ]
    lead = "Each file compared with the PyTorch network on the same images, when the bundle was written; from its manifest."
    return [paragraph(lead, class_="lead"), table("Errors against PyTorch, in the outputs' units", columns, rows)]


def agreement(document: At) -> list[object]:
    """Return how the contestants' outputs differ from the shared pass's, compared before anything was timed."""
    found = by_batch(document, lambda batch: _agreement(document, batch))
    lead = "Outputs were compared with the shared pass's before anything was timed."
    return [paragraph(lead, class_="lead"), *found] if found else []


def _agreement(document: At, batch: At) -> list[object]:
    roster = Roster(document)
    rows = [
        [roster.title(name), task, _against(at["error"], at["allowed"]), figure(at["allowed"], "error")]
        for name, tasks in batch["agreement"].items()
        for task, at in tasks.items()
    ]
    return (
        [table("Largest difference from the shared pass", ["", "task", "difference", "allowed"], rows)] if rows else []
    )


def _against(at: At, allowed: At) -> object:
    """Return an error, marked in words and colour where it is larger than allowed."""
    over = at.value is not None and allowed.value is not None and not at.number() <= allowed.number()
    if not over or math.isnan(allowed.number()):
        return figure(at, "error")
    return tag("span", figure(at, "error"), " too large", class_="bad")


def excluded(document: At) -> list[object]:
    """Return who was not measured, and why."""
    rows = [[name, reason.text()] for name, reason in document["excluded"].items()]
    return [words(table("Not measured, or not compared for speed", ["contestant", "why"], rows))] if rows else []


def words(made: Markup) -> Markup:
    """Return a table set for words instead of numbers."""
    return Markup(made.replace('class="scroll"', 'class="scroll words"', 1))
