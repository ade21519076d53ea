"""The report's plots: intervals on an axis, stacked shares, lines over a setting, and distributions of latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.blocks.at import At
from mtl_deploy.bench.blocks.axes import Axis, for_times, linear
from mtl_deploy.bench.blocks.kinds import counted, shown
from mtl_deploy.bench.blocks.plots import IntervalPlot, LinePlot, Plot, StackPlot
from mtl_deploy.bench.html.elements import Markup, join

from .canvas import Canvas, Entry

_ROW = 46  # pixels of a row of intervals
_RIDGE = 78  # of a distribution
_BINS = 200
_RAREST = 12  # slowest calls that are drawn one by one
_QUANTILES = ("p50", "p90", "p99")
_SHAPES = (
    "M4.5 0A4.5 4.5 0 1 1 -4.5 0A4.5 4.5 0 1 1 4.5 0Z",
    "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "M0 -5.5L5 4H-5Z",
)  # of quantiles


@dataclass(frozen=True)
class Ridge:
    """One contestant's latencies: its samples in milliseconds, and its record in the result."""

    name: str
    samples: npt.NDArray[np.float64]
    latency: At
    slot: int


@dataclass(frozen=True)
class RidgePlot:
    """How calls' latencies are spread, one row per contestant, on one axis.

    Attributes:
        rows: from the top; one at least.
        title: what is shown.
    """

    rows: Sequence[Ridge]
    title: str


Drawing: TypeAlias = "Plot | RidgePlot"


def draw(plot: Drawing, new: type[Canvas] = Canvas) -> Markup:
    """Draw a plot.

    Args:
        plot: what is drawn.
        new: what it is drawn on.
    """
    if isinstance(plot, IntervalPlot):
        return _intervals(plot, new)
    if isinstance(plot, RidgePlot):
        return _ridges(plot, new)
    return _stacks(plot, new) if isinstance(plot, StackPlot) else _lines(plot, new)


def _intervals(plot: IntervalPlot, new: type[Canvas]) -> Markup:
    rows, axis, show = plot.rows, plot.axis, plot.show
    canvas = new(_ROW * len(rows) + 6)
    canvas.x_axis(axis, plot.unit)
    if plot.mark is not None:
        for place in range(len(rows)):  # behind the marks, not the words
            y = canvas.top + _ROW * place
            canvas.line(axis.place(plot.mark), y + 20, axis.place(plot.mark), y + _ROW - 1, "reference")
    words = []
    for place, row in enumerate(rows):
        y = canvas.top + _ROW * place + 16
        value, low, high = row.at.numbers()
        canvas.text(0, y, _short(row.name, canvas.longest))
        texts = [(row.at[word], word) for word in ("value", "low", "high")]
        spans = [canvas.number(each, show) for each, _ in texts if each]
        if len(spans) == 3:
            canvas.text(1, y, join([spans[0], " (", spans[1], " to ", spans[2], ")"]), anchor="end", class_="strong")
        if not math.isnan(value):
            canvas.line(axis.place(low), y + 15, axis.place(high), y + 15, "whisker", row.slot)
            for end in (low, high):
                canvas.line(axis.place(end), y + 8, axis.place(end), y + 22, "whisker", row.slot)
            canvas.mark(axis.place(value), y + 15, row.slot, small=True)
            numbers = f"{shown(value, show)}, 95 % interval {shown(low, show)} to {shown(high, show)}"
            words.append(f"{row.name}: {numbers}{', ' if row.remark else ''}{row.remark}.")
    return canvas.figure(plot.title, " ".join(words))


def _stacks(plot: StackPlot, new: type[Canvas]) -> Markup:
    bars, show = plot.bars, plot.show
    scale = 100 if show == "percent" else 1
    sums = [sum(_known(at.number()) for _, at, _ in parts) * scale for _, parts in bars]
    axis = linear([0, *sums])
    names: dict[str, int] = {}
    words = []
    row = 52 if len(bars) > 1 else 36
    canvas = new(row * len(bars) + 4)
    canvas.x_axis(axis, plot.unit)
    for place, (name, parts) in enumerate(bars):
        y = canvas.top + row * place
        if len(bars) > 1:
            canvas.text(0, y + 12, _short(name, canvas.longest))
            y += 18
        done = 0.0
        for part, at, slot in parts:
            names.setdefault(part, slot)
            value = _known(at.number()) * scale
            start, end = axis.place(done), axis.place(done + value)
            canvas.bar(start, end, y, 28, slot)
            text = shown(at.value, show) if at else ""
            if (end - start) * canvas.narrowest > 7.5 * len(text) + 6:
                canvas.text((start + end) / 2, y + 18, canvas.number(at, show), class_="on", anchor="middle")
            done += value
        listed = ", ".join(f"{part} {shown(at.value, show)}" for part, at, _ in parts if at)
        words.append(f"{name}: {listed}{'' if show == 'percent' else ' ' + plot.unit}.")
    canvas.legend([Entry(name, slot) for name, slot in names.items()])
    return canvas.figure(plot.title, " ".join(words))


def _lines(plot: LinePlot, new: type[Canvas]) -> Markup:
    found, x_axis, y_axis, level = plot.lines, plot.x_axis, plot.y_axis, plot.level
    canvas = new(230, top=34, lines=True)
    canvas.y_axis(y_axis, plot.y)
    canvas.x_axis(x_axis, plot.x)
    words = []
    for line in found:
        points = [one for one in line.points if not math.isnan(one[1])]
        places = [(x_axis.place(px), canvas.y(y_axis, py)) for px, py, _, _ in points]
        if line.joined:
            canvas.curve(places, line.slot)
        for index, ((_, _, low, high), (px, py)) in enumerate(zip(points, places, strict=True)):
            if not line.marks:
                continue
            if not math.isnan(low):
                ends = [canvas.y(y_axis, end) for end in (low, high)]
                canvas.line(px, ends[0], px, ends[1], "whisker", line.slot)
            canvas.mark(px, py, line.slot, hollow=index in line.hollow)
        listed = ", ".join(f"{shown(py)} at {shown(px, 'plain')}" for px, py, _, _ in points)
        words.append(f"{line.name}: {listed}.")
    if level is not None:
        where = canvas.y(y_axis, level[0])
        canvas.line(0, where, 1, where, "reference")
        right = plot.level_right
        canvas.text(float(right), where - 6, level[1], dx=-6 if right else 6, anchor="end" if right else None)
    described = f"{plot.y} over {plot.x}. {' '.join(words)}"
    if len(found) > 1:
        canvas.legend([Entry(one.name, one.slot, line=True, joined=one.joined, marks=one.marks) for one in found])
    return canvas.figure(plot.title, described, caption=plot.caption)


def _ridges(plot: RidgePlot, new: type[Canvas]) -> Markup:
    """Draw distributions.

    A row is a histogram of all calls, as high as its fullest bin; the quantiles below it and the slowest calls as ticks are what
    a histogram hides.
    """
    ridges = plot.rows
    extremes = [float(end) for one in ridges for end in (one.samples.min(), one.samples.max())]
    axis = for_times(extremes)
    canvas = new(_RIDGE * len(ridges) + 4)
    canvas.x_axis(axis, "latency of a call, ms" + (", logarithmic" if axis.log else ""))
    words = []
    for place, ridge in enumerate(ridges):
        base = canvas.top + _RIDGE * (place + 1) - 14
        canvas.text(0, base - 52, _short(ridge.name, 48))
        canvas.area(_outline(ridge.samples, axis, base, 42), ridge.slot)
        slowest = np.sort(ridge.samples)[-_RAREST:] if len(ridge.samples) > 4 * _RAREST else ridge.samples[:0]
        for value in slowest:
            canvas.line(axis.place(float(value)), base - 6, axis.place(float(value)), base, "whisker", ridge.slot)
        canvas.line(0, base, 1, base, "base")
        listed = []
        for step, word in enumerate(_QUANTILES):
            found = ridge.latency[word]["value"]
            if not found:
                continue
            canvas.shape(axis.place(found.number()), base, _SHAPES[step], ridge.slot)
            listed.append(f"{word} {shown(found.value)} ms")
        mean = ridge.latency["mean"]["value"]
        listed += [f"mean {shown(mean.value)} ms"] if mean else []
        words.append(f"{ridge.name}: {', '.join(listed)}, {counted(len(ridge.samples), 'call')}.")
    return canvas.figure(
        plot.title,
        " ".join(words),
        caption="Each row is a histogram of all calls, as high as its fullest bin. Circle: p50, diamond: p90, triangle: p99; "
        f"one that too few calls bound is left out. Upright ticks: the {_RAREST} slowest calls.",
    )


def _outline(samples: npt.NDArray[np.float64], axis: Axis, base: float, height: float) -> list[tuple[float, float]]:
    """Return the outline of a histogram whose bins are equally wide on the axis; empty stretches take no points."""
    edges = np.geomspace(axis.low, axis.high, _BINS + 1) if axis.log else np.linspace(axis.low, axis.high, _BINS + 1)
    counts, _ = np.histogram(np.clip(samples, edges[0], edges[-1]), edges)
    heights = height * counts / max(int(counts.max()), 1)
    used = np.flatnonzero(counts)
    points = [(int(used[0]) / _BINS, base)]
    level = -1.0
    for index in range(int(used[0]), int(used[-1]) + 1):
        if heights[index] != level:
            level = float(heights[index])
            points += [(index / _BINS, points[-1][1]), (index / _BINS, base - level)]
    end = (int(used[-1]) + 1) / _BINS
    return [*points, (end, points[-1][1]), (end, base)]


def sampled(samples: object) -> npt.NDArray[np.float64]:
    """Return a contestant's samples of all processes and rounds in one array, in milliseconds."""
    rounds = [calls for process in samples or () for calls in process]  # type: ignore[attr-defined]
    return np.concatenate([np.asarray(calls, np.float64) for calls in rounds]) if rounds else np.empty(0)


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "\u2026"


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
