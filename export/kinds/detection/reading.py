"""How a network's outputs become rows: which of their axes holds what, found from their shapes and from what the task says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.detection.layout import Part
from mtl_deploy.runtime.kinds.detection.options import DetectionOptions, split

Axes = Literal["map", "grid", "rows", "columns", "flat"]
"""``map``: (N, A * k, h, w); ``grid``: (N, A, h, w, k); ``rows``: (N, A, k); ``columns``: (N, k, A); ``flat``: (N, A), k is 1."""


@dataclass(frozen=True)
class Source:
    """One output of the network.

    Attributes:
        parts: what it holds, in the order of its columns.
        axes: its form.
        rows: how many rows it gives.
        columns: values per row.
        shape: of the output for one image.
        places: height and width of a map; None where it is none.
    """

    parts: tuple[Part, ...]
    axes: Axes
    rows: int
    columns: int
    shape: tuple[int, ...]
    places: tuple[int, int] | None = None

    @property
    def per_place(self) -> int:
        """Rows per place of a map; 1 where it is none."""
        return 1 if self.places is None else self.rows // prod(self.places)


@dataclass(frozen=True)
class Reading:
    """How all outputs of a task are read.

    Attributes:
        options: the task's, with what was found: classes, landmarks, keypoints, coefficients.
        sources: one per output.
        rows: how many rows there are.
    """

    options: DetectionOptions
    sources: tuple[Source, ...]
    rows: int

    @property
    def groups(self) -> dict[tuple[Part, ...], list[int]]:
        """Positions of the outputs that hold the same parts: levels, whose rows follow one another."""
        found: dict[tuple[Part, ...], list[int]] = {}
        for place, source in enumerate(self.sources):
            found.setdefault(source.parts, []).append(place)
        return found

    @property
    def levels(self) -> list[tuple[int, int]] | None:
        """Height and width of each level; None where outputs have no places."""
        for places in self.groups.values():
            sides = [side for place in places if (side := self.sources[place].places) is not None]
            if len(sides) == len(places):
                return sides
        return None


def read(name: str, options: DetectionOptions, labels: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Reading:
    """Find out how outputs are read.

    Args:
        name: the task's.
        options: the task's.
        labels: its classes.
        shapes: of the outputs for one image, in the order of the task's outputs.

    Raises:
        TaskError: what the outputs hold does not fit their shapes.
    """
    where = f"task {name!r}"
    entries = _entries(where, options, len(shapes))
    options = replace(
        options, parts=tuple("+".join(entry) for entry in entries), classes=options.classes or len(labels)
    )
    levels = [entries[:place].count(entry) for place, entry in enumerate(entries)]
    for _ in range(len(shapes) + 1):  # what one output tells is needed for the next
        told = _tell(where, options, entries, levels, shapes)
        if told == options:
            break
        options = told
    sources = [
        _source(where, options, entry, level, shape)
        for entry, level, shape in zip(entries, levels, shapes, strict=True)
    ]
    reading = Reading(options, tuple(sources), 0)
    counts = {entry: sum(sources[place].rows for place in places) for entry, places in reading.groups.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} of {'+'.join(entry)}" for entry, count in counts.items())
        raise TaskError(f"{where}: its outputs give different numbers of rows: {listed}")
    if options.scores == "softmax" and options.columns.widths["scores"] < 2:
        raise TaskError(
            f'{where}: the softmax of one score is always 1; say scores = "sigmoid", or name the background'
        )
    return replace(reading, rows=next(iter(counts.values())))


def _entries(where: str, options: DetectionOptions, count: int) -> list[tuple[Part, ...]]:
    if not options.parts and count > 1:
        raise TaskError(f'{where}: say what each of its {count} outputs holds, as in parts = ["boxes", "scores"]')
    entries = [split(entry) for entry in options.parts or ("boxes+scores",)]
    if len(entries) == 1:
        entries *= count
    if len(entries) != count:
        raise TaskError(f"{where}: {len(entries)} parts for {count} outputs; give one for each, or one for all")
    for place, entry in enumerate(entries):
        for other in entries[:place]:
            if entry != other and set(entry) & set(other):
                raise TaskError(
                    f"{where}: {'+'.join(entry)} and {'+'.join(other)} hold the same; levels have the same parts"
                )
    return entries


def _width(options: DetectionOptions, part: Part) -> int:
    """Return the values of a part per row; 0 where it is not known."""
    if part == "scores":
        return options.columns.widths["scores"] if options.classes else 0
    return options.columns.widths[part] if part != "objectness" else 1


def _known(options: DetectionOptions, entry: Sequence[Part]) -> tuple[int, list[Part]]:
    """Return how many values per row are known, and the parts whose number is not."""
    return sum(_width(options, part) for part in entry), [part for part in entry if not _width(options, part)]


def _tell(
    where: str,
    options: DetectionOptions,
    entries: Sequence[tuple[Part, ...]],
    levels: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
) -> DetectionOptions:
    """Return the options with one more number that an output tells, if there is one."""
    for entry, level, shape in zip(entries, levels, shapes, strict=True):
        known, open_parts = _known(options, entry)
        if not open_parts:
            continue
        if len(open_parts) > 1:
            raise TaskError(
                f"{where}: say how many {' and '.join(_FIELDS[part] for part in open_parts[:-1])} there are; one of "
                f"{', '.join(open_parts)} alone can be found from the shape"
            )
        per_row = _values_per_row(options, level, shape, entries, levels, shapes)
        if per_row is None:
            continue
        part, left = open_parts[0], per_row - known
        unit = {"landmarks": 2, "keypoints": 3}.get(part, 1)
        more = options.columns.background if part == "scores" else 0
        if left - more < 1 or left % unit:
            raise TaskError(
                f"{where}: an output of shape {_text(shape)} has {per_row} values per row, which leaves {left} for {part} beside "
                f"{', '.join(entry)}"
            )
        counts: dict[str, Any] = {_FIELDS[part]: left // unit - more}
        return replace(options, **counts)
    return options


_FIELDS: dict[Part, str] = {
    "scores": "classes",
    "landmarks": "landmarks",
    "keypoints": "keypoints",
    "coefficients": "coefficients",
}


def _values_per_row(
    options: DetectionOptions,
    level: int,
    shape: tuple[int, ...],
    entries: Sequence[tuple[Part, ...]],
    levels: Sequence[int],
    shapes: Sequence[tuple[int, ...]],
) -> int | None:
    """Return an output's values per row where they are not all known; None where only another output will tell."""
    if len(shape) == 1:
        return 1
    if len(shape) == 2:
        return shape[0] if options.layout == "columns" else shape[1]
    if len(shape) == 4:
        return shape[3]
    if options.anchors:
        count = len(options.anchors[min(level, len(options.anchors) - 1)])
        return shape[0] // count if shape[0] % count == 0 else None
    for other, its_level, its_shape in zip(entries, levels, shapes, strict=True):
        known, unknown = _known(options, other)
        if not unknown and its_level == level and len(its_shape) == 3 and its_shape[0] % known == 0:
            count = its_shape[0] // known
            return shape[0] // count if shape[0] % count == 0 else None
    return shape[0]  # one row per place


def _source(
    where: str, options: DetectionOptions, entry: tuple[Part, ...], level: int, shape: tuple[int, ...]
) -> Source:
    size, unknown = _known(options, entry)
    assert not unknown  # _tell found them
    words = "+".join(entry)
    if len(shape) == 1 and size == 1:
        return Source(entry, "flat", shape[0], 1, shape)
    if len(shape) == 2:
        fits = [axes for axes, found in (("rows", shape[1]), ("columns", shape[0])) if found == size]
        if options.layout in fits or (fits and options.layout is None):
            axes: Axes = "columns" if (options.layout or fits[0]) == "columns" else "rows"
            return Source(entry, axes, shape[0] if axes == "rows" else shape[1], size, shape)
    if len(shape) == 3 and shape[0] % size == 0:
        count = shape[0] // size
        if not options.anchors or count == len(options.anchors[min(level, len(options.anchors) - 1)]):
            return Source(entry, "map", count * shape[1] * shape[2], size, shape, (shape[1], shape[2]))
    if len(shape) == 4 and shape[3] == size:
        return Source(entry, "grid", prod(shape[:3]), size, shape, (shape[1], shape[2]))
    raise TaskError(
        f"{where}: an output of shape {_text(shape)} cannot hold rows of {words}, {size} values each; it is (N, rows, {size}), "
        f"(N, {size}, rows), (N, anchors x {size}, height, width) or (N, anchors, height, width, {size}); labels and anchors must "
        "be those of the network"
    )


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['N', *map(str, shape)])})"
