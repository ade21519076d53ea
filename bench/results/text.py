"""A result as text for a terminal, made from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_deploy.bench.blocks import terminal
from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Block, Cell, Column, Ends, Figure, Piece, Roster, Sentence, Table
from mtl_deploy.bench.sections import registry

from .tables import contestants, milliseconds, throughputs

_SIDES = ("shared", "separate")


def render(document: Mapping[str, Any]) -> str:
    """Return everything for people: tables, warnings and the answer last.

    Args:
        document: what ``mtl-bench --json`` writes; see docs/benchmarking.md.
    """
    at = At(document)
    batches = list(at["batches"])
    if len(batches) == 1:
        (batch,) = batches
        warnings = [*batch["warnings"], *at["warnings"]]
        blocks = [*_batch(at, batch), *_run_sections(at), _closing(warnings, batch["answer"])]
    else:
        blocks = [block for batch in batches for block in (*_batch(at, batch), _end(batch))]
        blocks += [*terminal.render(throughputs(at, batches, Roster(at))), *_run_sections(at), _end(at)]
    return "\n\n".join(blocks) + "\n"


def _end(at: At) -> str:
    return _closing(list(at["warnings"]), at["answer"])


def _closing(warnings: Sequence[At], answer: At) -> str:
    return "\n".join([*(f"warning: {warning.text()}" for warning in warnings), answer.text()])


def _run_sections(at: At) -> list[str]:
    roster = Roster(at)
    found = [(section, at.down(section.place)) for section in registry.run_sections()]
    return [text for section, one in found if one for text in terminal.render(section.blocks(one, roster))]


def _batch(at: At, batch: At) -> list[str]:
    roster = Roster(at)
    blocks: list[Block] = [_header(at, batch), _sides(at, batch), *_notes(at, batch), *contestants(at, batch, roster)]
    for section in registry.batch_sections():
        if found := batch.down(section.place):
            blocks += section.blocks(found, batch, roster)
    return terminal.render(blocks)


def _header(at: At, batch: At) -> Sentence:
    settings, machine = at["settings"], at["environment"]
    if at["backend"].value == "tensorrt":
        how = f"CUDA graphs {'on' if settings['cuda_graphs'].value else 'off'}"
    else:
        how = _count(settings["threads"], "thread") if settings["threads"] else "default threads"
    processor = machine["processor"].text() or machine["machine"].text()
    return Sentence(
        [
            f"{at['bundle']['path'].text()}: {at['precision'].text()}, {_count(batch['batch'], 'image')} per call, {how}; "
            f"{_count(batch['processes'], 'process', 'processes')}, {batch['rounds'].text()} rounds in turn\n"
            f"{processor}, {machine['usable_cores'].text()} cores; {at['contestants']['shared']['details'].text()}"
        ]
    )


def _count(at: At, word: str, many: str | None = None) -> str:
    return f"{at.value} {word if at.value == 1 else many or f'{word}s'}"


def _sides(at: At, batch: At) -> Table:
    """Return the figures of shared and separate, a row for each figure."""
    sides = [side for side in _SIDES if batch["contestants"][side]]
    measured = [batch["contestants"][side] for side in sides]
    files = [at["contestants"][side] for side in sides]
    ms = milliseconds(at, batch)
    rows = [
        _row(f"latency {word}, ms", [one["latency_ms"][word]["value"] for one in measured], ms)
        for word in ("p50", "p90", "p99", "mean")
    ]
    rows.append(_row("spread of rounds, %", [one["round_spread"] for one in measured], "percentage", ratio=False))
    rows.append(_row("images per second", [one["images_per_s"] for one in measured], "rate"))
    rows.append(_row("multiply-adds, G", [one["multiply_adds"] for one in files], "G"))
    rows.append(_row("parameters, M", [one["parameters"] for one in files], "M"))
    rows.append(_row("size on disk, MB", [one["size_bytes"] for one in files], "file MB"))
    for label, word in (("peak memory, MB", "peak"), ("  for models, MB", "models"), ("GPU memory, MB", "gpu")):
        if all(one["memory_bytes"][word].value is not None for one in measured):
            rows.append(_row(label, [one["memory_bytes"][word] for one in measured], "MB"))
    count = len(at["contestants"]["separate"]["artifacts"].value or ())
    titles = {"shared": "shared", "separate": f"{count} separate"}
    columns = ["", *(titles[side] for side in sides), *(["ratio"] if len(sides) > 1 else [])]
    return Table("", [Column(title) for title in columns], rows)


def _row(label: str, values: Sequence[At], show: str, *, ratio: bool = True) -> list[Cell]:
    """Return a row's cells: the sides, and separate over shared."""
    cells: list[Cell] = [label, *(Figure(value, show) for value in values)]
    if len(values) < 2:
        return cells
    shared, separate = (value.number() for value in values)
    return [*cells, f"{separate / shared:.2f}" if ratio and shared and shared == shared and separate > 0 else ""]


def _notes(at: At, batch: At) -> list[Sentence]:
    """Return the block of lines under the figures of the sides, where there is something to say."""
    ms = milliseconds(at, batch)
    known = [(side, batch["contestants"][side]["latency_ms"]) for side in _SIDES if batch["contestants"][side]]
    bounds: list[Piece] = []
    for side, latency in known:
        if latency["p99"]:
            bounds += [f"{', ' if bounds else ''}{side} ", Ends(latency["p99"], ms)]
    lines: list[Piece] = ["p99, 95 % intervals in ms: ", *bounds, "."] if bounds else []
    if any(not latency[word] for _, latency in known for word in ("p50", "p90", "p99")):
        lines += ["\n"] if lines else []
        lines.append("n/a: too few calls to bound the quantile; measure for longer with --duration.")
    return [Sentence(lines)] if lines else []
