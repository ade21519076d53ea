"""Shared and separate side by side: every figure as a table, and the main ones in a line each."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.blocks import Cell, Column, Ends, Figure, Piece, Sentence, Table
from mtl_deploy.bench.blocks.kinds import counted
from mtl_deploy.bench.results.tables import milliseconds

_SIDES = ("shared", "separate")
_QUANTILES = ("p50", "p90", "p99")


def header(at: At, batch: At) -> Sentence:
    """Return what was measured where, in two lines."""
    settings, machine = at["settings"], at["environment"]
    if at["backend"].value == "tensorrt":
        how = f"CUDA graphs {'on' if settings['cuda_graphs'].value else 'off'}"
    else:
        how = _count(settings["threads"], "thread") if settings["threads"] else "default threads"
    processor = machine["processor"].text() or machine["machine"].text()
    return Sentence(
        [
            f"{at['bundle']['path'].text()}: {at['precision'].text()}, {_count(batch['batch'], 'image')} per call, {how}; "
            f"{_count(batch['processes'], 'process', 'processes')}, {_count(batch['rounds'], 'round')} in turn\n"
            f"{processor}, {_count(machine['usable_cores'], 'core')}; {at['contestants']['shared']['details'].text()}"
        ]
    )


def _count(at: At, word: str, many: str | None = None) -> str:
    return "n/a" if at.value is None else counted(at.value, word, many)


def sides(at: At, batch: At) -> Table:
    """Return the figures of shared and separate, a row for each figure."""
    known = [side for side in _SIDES if batch["contestants"][side]]
    measured = [batch["contestants"][side] for side in known]
    files = [at["contestants"][side] for side in known]
    ms = milliseconds(at, batch)
    rows = [
        _row(f"latency {word}, ms", [one["latency_ms"][word]["value"] for one in measured], ms)
        for word in (*_QUANTILES, "mean")
    ]
    rows.append(_row("spread of rounds, %", [one["round_spread"] for one in measured], "percentage", ratio=False))
    rows.append(_row("images per second", [one["images_per_s"] for one in measured], "rate"))
    rows.append(_row("multiply-adds, G", [one["multiply_adds"] for one in files], "G"))
    rows.append(_row("parameters, M", [one["parameters"] for one in files], "M"))
    rows.append(_row("size on disk, MB", [one["size_bytes"] for one in files], "file MB"))
    for label, word in (("peak memory, MB", "peak"), ("  for models, MB", "models"), ("GPU memory, MB", "gpu")):
        if all(one["memory_bytes"][word].value is not None for one in measured):
            rows.append(_row(label, [one["memory_bytes"][word] for one in measured], "MB"))
    columns = ["", *(_title(at, side) for side in known), *(["ratio"] if len(known) > 1 else [])]
    return Table("", [Column(title) for title in columns], rows)


def _title(at: At, side: str) -> str:
    return side if side == "shared" else f"{len(at['contestants'][side]['artifacts'].value or ())} {side}"


def _row(label: str, values: Sequence[At], show: str, *, ratio: bool = True) -> list[Cell]:
    """Return a row's cells: the sides, and separate over shared."""
    cells: list[Cell] = [label, *(Figure(value, show) for value in values)]
    if len(values) < 2:
        return cells
    shared, separate = (value.number() for value in values)
    return [*cells, f"{separate / shared:.2f}" if ratio and shared and shared == shared and separate > 0 else ""]


def notes(at: At, batch: At) -> list[Sentence]:
    """Return the block of lines under the figures of the sides, where there is something to say."""
    ms = milliseconds(at, batch)
    known = [(side, batch["contestants"][side]["latency_ms"]) for side in _SIDES if batch["contestants"][side]]
    bounds: list[Piece] = []
    for side, latency in known:
        if latency["p99"]:
            bounds += [f"{', ' if bounds else ''}{side} ", Ends(latency["p99"], ms)]
    lines: list[Piece] = ["p99, 95 % intervals in ms: ", *bounds, "."] if bounds else []
    if any(not latency[word] for _, latency in known for word in _QUANTILES):
        lines += ["\n"] if lines else []
        lines.append("n/a: too few calls to bound the quantile; measure for longer with --duration.")
    return [Sentence(lines)] if lines else []


def latency_line(at: At, batch: At) -> list[Piece]:
    """Return the quantiles of both sides in one line; those that could not be bounded are left out."""
    ms, pieces = milliseconds(at, batch), list[Piece]()
    for side in _SIDES:
        latency = batch["contestants"][side]["latency_ms"]
        words = [word for word in _QUANTILES if latency[word]] or (["mean"] if latency["mean"] else [])
        for place, word in enumerate(words):
            pieces.append(f"{_between(pieces, place)}{_title(at, side) + ' ' if place == 0 else ''}{word} ")
            pieces += [Figure(latency[word]["value"], ms), " ms"]
    return pieces


def memory_line(at: At, batch: At) -> list[Piece]:
    """Return in one line what both sides take: memory where it was measured, and the size of their files."""
    pieces = list[Piece]()
    for side in _SIDES if batch["contestants"]["separate"] else _SIDES[:1]:
        memory, size = batch["contestants"][side]["memory_bytes"], at["contestants"][side]["size_bytes"]
        found = [
            (memory["gpu"], "MB", "of GPU memory"),
            (memory["peak"], "MB", "at its peak"),
            (size, "file MB", "on disk"),
        ]
        for place, (value, show, words) in enumerate(one for one in found if one[0].value is not None):
            pieces.append(f"{_between(pieces, place)}{_title(at, side) + ' ' if place == 0 else ''}")
            pieces += [Figure(value, show), f" MB {words}"]
    return pieces


def _between(before: Sequence[Piece], place: int) -> str:
    return ", " if place else "; " if before else ""
