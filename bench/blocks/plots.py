"""Plots as data: intervals on an axis, stacked shares, and lines over a setting. Pages draw them, terminals leave them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .at import At
from .axes import Axis


@dataclass(frozen=True)
class Dot:
    """A row of an interval plot: an interval of the result."""

    name: str
    at: At
    slot: int
    remark: str = ""


@dataclass(frozen=True)
class IntervalPlot:
    """Values with their intervals, one per row.

    Attributes:
        rows: from the top.
        axis: of the values.
        title: what is shown.
        unit: the axis's title.
        show: how figures are written.
        mark: where a line marks no difference.
    """

    rows: Sequence[Dot]
    axis: Axis
    title: str
    unit: str
    show: str
    mark: float | None = None


@dataclass(frozen=True)
class StackPlot:
    """Bars of parts that add up, with a legend.

    Attributes:
        bars: a name and its parts, each with its figure and its place in the palette.
        title: what is shown.
        unit: the axis's title.
        show: how figures are written.
    """

    bars: Sequence[tuple[str, Sequence[tuple[str, At, int]]]]
    title: str
    unit: str
    show: str


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
class LinePlot:
    """Lines over a setting, with a legend.

    Attributes:
        lines: from the first in the legend.
        x_axis: of the setting.
        y_axis: of the values.
        title: what is shown.
        x: the setting's name, with its unit.
        y: the values' name, with their unit.
        level: a value to mark across the plot, and what it is.
        level_right: whether that is written at the right end.
        caption: below the plot.
    """

    lines: Sequence[Line]
    x_axis: Axis
    y_axis: Axis
    title: str
    x: str
    y: str
    level: tuple[float, str] | None = None
    level_right: bool = False
    caption: str | None = None


Plot: TypeAlias = "IntervalPlot | StackPlot | LinePlot"


def points_of(rows: Sequence[tuple[float, At]]) -> list[tuple[float, float, float, float]]:
    """Return a line's points from intervals of the result."""
    return [(x, *at.numbers()) for x, at in rows]


def all_values(found: Sequence[Line]) -> list[float]:
    """Return what a vertical axis must hold."""
    return [value for line in found for point in line.points for value in point[1:]]
