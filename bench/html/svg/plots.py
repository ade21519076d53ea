"""The report's plots: intervals on an axis, stacked shares, lines over a setting, and distributions of latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.html.elements import At, Markup, join, shown, svg_figure, tag

from .axes import Axis, for_times, linear
from .canvas import Canvas, legend, percent, slot_class, swatch

_ROW = 46  # pixels of a row of intervals
_RIDGE = 78  # of a distribution
_BINS = 200
_RAREST = 12  # slowest calls that are drawn one by one
_QUANTILES = ("p50", "p90", "p99")
_LONGEST = 30  # characters beside a figure on a phone


@dataclass(frozen=True)
class Dot:
    """A row of an interval plot: an Interval of the result."""

    name: str
    at: At
    slot: int
    remark: str = ""


@dataclass(frozen=True)
class Line:
    """A line over a setting.

    Attributes:
        name: what it is.
        points: ``(x, y, low, high)``; low and high NaN where there is no interval.
        slot: place in the palette.
        marks: whether the points are drawn: those that were measured are.
        joined: whether the line is drawn.
        hollow: indices of points that are drawn hollow.
    """

    name: str
    points: Sequence[tuple[float, float, float, float]]
    slot: int
    marks: bool = True
    joined: bool = True
    hollow: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Ridge:
    """One contestant's latencies: its samples in milliseconds, and its record in the result."""

    name: str
    samples: npt.NDArray[np.float64]
    latency: At
    slot: int


def intervals(rows: Sequence[Dot], axis: Axis, *, title: str, unit: str, show: str, at: float | None = None) -> Markup:
    """Plot values with their intervals, a row each.

    Args:
        rows: from the top.
        axis: of the values.
        title: what is shown.
        unit: the axis's title.
        show: how figures are written.
        at: where a line marks no difference.
    """
    canvas = Canvas(_ROW * len(rows) + 6)
    canvas.x_axis(axis, unit)
    if at is not None:
        for place in range(len(rows)):  # behind the marks, not the words
            y = canvas.top + _ROW * place
            canvas.line(axis.place(at), y + 20, axis.place(at), y + _ROW - 1, "reference")
    words = []
    for place, row in enumerate(rows):
        y = canvas.top + _ROW * place + 16
        value, low, high = row.at.numbers()
        canvas.text(0, y, _short(row.name))
        texts = [(row.at[word], word) for word in ("value", "low", "high")]
        spans = [tag("tspan", shown(each.value, show), **svg_figure(each, show)) for each, _ in texts if each]
        if len(spans) == 3:
            canvas.text(1, y, join([spans[0], " (", spans[1], " to ", spans[2], ")"]), anchor="end", class_="strong")
        if not math.isnan(value):
            canvas.line(axis.place(low), y + 15, axis.place(high), y + 15, f"whisker {slot_class(row.slot)}")
            for end in (low, high):
                canvas.line(axis.place(end), y + 8, axis.place(end), y + 22, f"whisker {slot_class(row.slot)}")
            canvas.mark(axis.place(value), y + 15, row.slot, small=True)
            numbers = f"{shown(value, show)}, 95 % interval {shown(low, show)} to {shown(high, show)}"
            words.append(f"{row.name}: {numbers}{', ' if row.remark else ''}{row.remark}.")
    return canvas.figure(title, " ".join(words))


def stacks(bars: Sequence[tuple[str, Sequence[tuple[str, At, int]]]], *, title: str, unit: str, show: str) -> Markup:
    """Plot bars of parts that add up, with a legend.

    Args:
        bars: a name and its parts, each with its figure and its place in the palette.
        title: what is shown.
        unit: the axis's title.
        show: how figures are written.
    """
    scale = 100 if show == "percent" else 1
    sums = [sum(_known(at.number()) for _, at, _ in parts) * scale for _, parts in bars]
    axis = linear([0, *sums])
    names: dict[str, int] = {}
    words = []
    row = 52 if len(bars) > 1 else 36
    canvas = Canvas(row * len(bars) + 4)
    canvas.x_axis(axis, unit)
    for place, (name, parts) in enumerate(bars):
        y = canvas.top + row * place
        if len(bars) > 1:
            canvas.text(0, y + 12, _short(name))
            y += 18
        done = 0.0
        for part, at, slot in parts:
            names.setdefault(part, slot)
            value = _known(at.number()) * scale
            start, end = axis.place(done), axis.place(done + value)
            where = {"x": percent(start), "width": percent(max(0.0, end - start)), "y": y, "height": 28}
            canvas.add(tag("rect", **where, class_=f"segment {slot_class(slot)}"))
            text = shown(at.value, show) if at else ""
            if (end - start) * 300 > 7.5 * len(text) + 6:
                label = tag("tspan", text, **svg_figure(at, show))
                canvas.text((start + end) / 2, y + 18, label, class_="on", anchor="middle")
            done += value
        listed = ", ".join(f"{part} {shown(at.value, show)}" for part, at, _ in parts if at)
        words.append(f"{name}: {listed}{'' if show == 'percent' else ' ' + unit}.")
    return join([legend([(swatch(slot), name) for name, slot in names.items()]), canvas.figure(title, " ".join(words))])


def lines(
    found: Sequence[Line],
    x_axis: Axis,
    y_axis: Axis,
    *,
    title: str,
    x: str,
    y: str,
    level: tuple[float, str] | None = None,
    level_right: bool = False,
    caption: str | None = None,
) -> Markup:
    """Plot lines over a setting, with a legend.

    Args:
        found: the lines.
        x_axis: of the setting.
        y_axis: of the values.
        title: what is shown.
        x: the setting's name, with its unit.
        y: the values' name, with their unit.
        level: a value to mark across the plot, and what it is.
        level_right: whether that is written at the right end.
        caption: below the plot.
    """
    canvas = Canvas(230, top=34, lines=True)
    canvas.y_axis(y_axis, y)
    canvas.x_axis(x_axis, x)
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
                canvas.line(px, ends[0], px, ends[1], f"whisker {slot_class(line.slot)}")
            canvas.mark(px, py, line.slot, hollow=index in line.hollow)
        listed = ", ".join(f"{shown(py)} at {shown(px, 'plain')}" for px, py, _, _ in points)
        words.append(f"{line.name}: {listed}.")
    if level is not None:
        where = canvas.y(y_axis, level[0])
        canvas.line(0, where, 1, where, "reference")
        right = level_right
        canvas.text(float(right), where - 6, level[1], dx=-6 if right else 6, anchor="end" if right else None)
    described = f"{y} over {x}. {' '.join(words)}"
    entries = [(swatch(one.slot, line=True, joined=one.joined, marks=one.marks), one.name) for one in found]
    drawn = canvas.figure(title, described, caption=caption)
    return join([legend(entries), drawn]) if len(found) > 1 else drawn


def distributions(ridges: Sequence[Ridge], *, title: str) -> Markup:
    """Plot how calls' latencies are spread, a row a contestant, on one axis.

    A row is a histogram of all calls, as high as its fullest bin; the quantiles below it and the slowest calls as ticks are what
    a histogram hides.
    """
    extremes = [float(end) for one in ridges for end in (one.samples.min(), one.samples.max())]
    axis = for_times(extremes)
    canvas = Canvas(_RIDGE * len(ridges) + 4)
    canvas.x_axis(axis, "latency of a call, ms" + (", logarithmic" if axis.log else ""))
    words = []
    for place, ridge in enumerate(ridges):
        base = canvas.top + _RIDGE * (place + 1) - 14
        canvas.text(0, base - 52, _short(ridge.name, 48))
        canvas.area(_outline(ridge.samples, axis, base, 42), ridge.slot)
        slowest = np.sort(ridge.samples)[-_RAREST:] if len(ridge.samples) > 4 * _RAREST else ridge.samples[:0]
        for value in slowest:
            canvas.line(
                axis.place(float(value)), base - 6, axis.place(float(value)), base, f"whisker {slot_class(ridge.slot)}"
            )
        canvas.line(0, base, 1, base, "base")
        listed = []
        for step, word in enumerate(_QUANTILES):
            found = ridge.latency[word]["value"]
            if not found:
                continue
            where = axis.place(found.number())
            canvas.add(_quantile_mark(where, base, step, ridge.slot))
            listed.append(f"{word} {shown(found.value)} ms")
        mean = ridge.latency["mean"]["value"]
        listed += [f"mean {shown(mean.value)} ms"] if mean else []
        words.append(f"{ridge.name}: {', '.join(listed)}, {len(ridge.samples):,} calls.")
    return canvas.figure(
        title,
        " ".join(words),
        caption="Each row is a histogram of all calls, as high as its fullest bin. Circle: p50, diamond: p90, triangle: p99; "
        f"one that too few calls bound is left out. Upright ticks: the {_RAREST} slowest calls.",
    )


def _quantile_mark(x: float, y: float, step: int, slot: int) -> Markup:
    shape = ("M4.5 0A4.5 4.5 0 1 1 -4.5 0A4.5 4.5 0 1 1 4.5 0Z", "M0 -5.5L5.5 0L0 5.5L-5.5 0Z", "M0 -5.5L5 4H-5Z")[step]
    return tag("svg", tag("path", d=shape, class_=f"hollow {slot_class(slot)}"), x=percent(x), y=y, overflow="visible")


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


def points_of(rows: Sequence[tuple[float, At]]) -> list[tuple[float, float, float, float]]:
    """Return a line's points from Intervals of the result."""
    return [(x, *at.numbers()) for x, at in rows]


def all_values(found: Sequence[Line]) -> list[float]:
    """Return what a vertical axis must hold."""
    return [value for line in found for point in line.points for value in point[1:]]


def _short(name: str, longest: int = _LONGEST) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "\u2026"


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value
