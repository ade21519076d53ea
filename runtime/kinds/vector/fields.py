"""The fields that only a vector task has, and what they say of each of its values: name, unit, factor, axis of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.json_schema import Schema

Axis = Literal["x", "y", "width", "height"]

FRAMES = ("input", "unit")
ORDERS = ("pairs", "planes")
AXES: dict[str, Axis] = {
    **dict.fromkeys(("x", "x0", "x1", "x2", "xmin", "xmax", "cx", "left", "right"), "x"),
    **dict.fromkeys(("y", "y0", "y1", "y2", "ymin", "ymax", "cy", "top", "bottom"), "y"),
    **dict.fromkeys(("w", "width"), "width"),
    **dict.fromkeys(("h", "height"), "height"),
}
"""By the part of a value's name behind its last dot: which coordinate of the image it is, where the task has a frame."""

_TEXTS: Schema = {"type": "array", "items": {"type": "string"}, "maxItems": 1 << 16}
_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}, "maxItems": 1 << 16}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _normaliser(text: str) -> str | float | list[str]:
    if "," in text:
        return _words(text)
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class VectorOptions:
    """What the values are.

    Attributes:
        names: of the values, in the order of the network's, such as ``left_eye.x``; with an ``order``, of the points. Empty: they
            are numbered.
        order: of points: ``pairs`` (x and y of the first, then of the second), ``planes`` (x of all, then y of all). None:
            ``names`` name each value.
        units: of the values, one each; empty: the task's ``unit`` is that of all.
        frame: where values are coordinates: ``input``: in pixels of the network's input; ``unit``: in shares of its sides, 0 to 1.
            They become pixels of the image, see :data:`AXES`. None: values are no coordinates.
        scales: factors of the values, one each, instead of the task's ``scale``.
        offsets: likewise, instead of ``offset``.
        normaliser: what the mean error of points is divided by: the distance of two points, by their names; a number, in the
            values' unit; or ``image``: the square root of the image's area. None: it is not normalised.
    """

    names: tuple[str, ...] = option(
        _TEXTS,
        default=(),
        read=_words,
        form="write names with commas between, such as left_eye.x,left_eye.y",
        doc="a name for each value, in the network's order; with an order, for each point",
    )
    order: str | None = option(
        {"enum": [*ORDERS, None]},
        default=None,
        read=str,
        form="write pairs or planes",
        doc="how points are stored: pairs, x and y of each point in turn; planes, all x, then all y",
    )
    units: tuple[str, ...] = option(
        _TEXTS, default=(), read=_words, form="write one unit per value, with commas between", doc="unit of each value"
    )
    frame: str | None = option(
        {"enum": [*FRAMES, None]},
        default=None,
        read=str,
        form="write input or unit",
        doc="what coordinates are in: input, pixels of the network's input; unit, shares of its sides",
    )
    scales: tuple[float, ...] = option(
        _NUMBERS,
        default=(),
        read=_floats,
        form="write one number per value, with commas between",
        doc="a factor for each value, from the raw output to its unit",
    )
    offsets: tuple[float, ...] = option(
        _NUMBERS,
        default=(),
        read=_floats,
        form="write one number per value, with commas between",
        doc="an offset for each value, added after the factor",
    )
    normaliser: str | float | tuple[str, str] | None = option(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
                {"enum": ["image", None]},
            ]
        },
        default=None,
        read=_normaliser,
        form="write the names of two points, a number or image",
        doc="what the error of points is divided by",
    )


def options_of(task: Task) -> VectorOptions:
    """Return a vector task's own fields."""
    return cast("VectorOptions", task.options)


def value_names(task: Task) -> tuple[str, ...]:
    """Return the name of each value; numbers where there are none. Without a size, and without names, there are none."""
    options = options_of(task)
    if options.order is None:
        return options.names or tuple(map(str, range(task.size)))
    points = options.names or tuple(map(str, range(task.size // 2)))
    if options.order == "pairs":
        return tuple(f"{point}.{axis}" for point in points for axis in "xy")
    return tuple(f"{point}.{axis}" for axis in "xy" for point in points)


def axes(task: Task) -> tuple[Axis | None, ...]:
    """Return which coordinate of the image each value is; None: none."""
    if options_of(task).frame is None:
        return (None,) * len(value_names(task))
    return tuple(AXES.get(name.rpartition(".")[2].lower()) for name in value_names(task))


def value_units(task: Task) -> tuple[str | None, ...]:
    """Return the unit of each value in a prediction: pixels of the image for its coordinates."""
    options = options_of(task)
    names = value_names(task)
    own: Sequence[str | None] = options.units or (task.unit,) * len(names)
    return tuple("pixels" if axis else unit for axis, unit in zip(axes(task), own, strict=True))


def common_unit(task: Task) -> str | None:
    """Return the unit of all values; None where they have none, or several."""
    found = set(value_units(task))
    return found.pop() if len(found) == 1 else None


def is_mixed(task: Task) -> bool:
    """Return whether values have several units, so that no mean of them has one."""
    return len(set(value_units(task))) > 1


def points_of(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return by point the positions of its x and y: values that are called ``NAME.x`` and ``NAME.y``."""
    place = {name: position for position, name in enumerate(names)}
    found = {}
    for name, position in place.items():
        point, dot, last = name.rpartition(".")
        if dot and last == "x" and f"{point}.y" in place and not {f"{point}.{one}" for one in _SIDES} & place.keys():
            found[point] = (position, place[f"{point}.y"])
    return found


_SIDES = ("w", "h", "width", "height")  # beside x and y: a box


def factors(task: Task) -> npt.NDArray[np.float32]:
    """Return what each of the network's values is multiplied by, ``(size,) float32``."""
    return np.array(options_of(task).scales or (task.scale,) * task.size, np.float32)


def shifts(task: Task) -> npt.NDArray[np.float32]:
    """Return what is added to each value then, ``(size,) float32``."""
    return np.array(options_of(task).offsets or (task.offset,) * task.size, np.float32)


def check_fields(task: Task) -> None:
    """Check a vector task's fields against one another.

    Raises:
        TaskError: two do not fit each other, or a name is none.
    """
    options, who = options_of(task), f"task {task.name!r}"
    for name in options.names:
        if not name or name != name.strip() or "," in name or ";" in name:
            raise TaskError(f"{who}: {name!r} is no name of a value; use letters, digits and dots, such as left_eye.x")
    lower = [name.lower() for name in options.names]
    if repeated := sorted({name for name in lower if lower.count(name) > 1}):
        raise TaskError(
            f"{who}: names repeat: {', '.join(repeated)}; they name columns of labels, where case does not count"
        )
    if options.units and task.unit is not None:
        raise TaskError(f"{who}: unit is that of all values, units has one for each; give one of the two")
    for each, word, neutral in (("scales", "scale", 1.0), ("offsets", "offset", 0.0)):
        if getattr(options, each) and getattr(task, word) != neutral:
            raise TaskError(f"{who}: {word} is that of all values, {each} has one for each; give one of the two")
    if options.frame is not None and options.order is None and not any(axes(task)):
        raise TaskError(
            f"{who}: frame {options.frame} is about coordinates, and no value is one by its name; give names that end in .x and .y "
            f"(known endings: {', '.join(AXES)}), or order = 'pairs' (x, y, x, y, ...) or 'planes' (all x, then all y)"
        )
    _check_normaliser(task, options)


def _check_normaliser(task: Task, options: VectorOptions) -> None:
    who, normaliser = f"task {task.name!r}", options.normaliser
    if normaliser is None:
        return
    counted = options.order is not None and not options.names
    points = points_of(value_names(task))
    if not points and not counted:
        raise TaskError(
            f"{who}: normaliser is for points, and no two values are called NAME.x and NAME.y; give names, or an order"
        )
    if normaliser == "image" and options.frame is None:
        raise TaskError(f"{who}: normaliser image needs coordinates of the image: give the frame, input or unit")
    if isinstance(normaliser, tuple) and (not counted or task.size):
        unknown = [name for name in normaliser if name not in points]
        if unknown or normaliser[0] == normaliser[1]:
            wrong = f"no point is called {unknown[0]!r}" if unknown else "the two points are one"
            shown = ", ".join(list(points)[:12]) + (", ..." if len(points) > 12 else "")
            raise TaskError(f"{who}: normaliser: {wrong}; the points are {shown}")


def check_count(task: Task, size: int) -> None:
    """Check the number of values that the network returns.

    Raises:
        TaskError: names, units or factors are more or fewer, or points have no even number.
    """
    options, who = options_of(task), f"task {task.name!r}"
    if options.order is not None and size % 2:
        raise TaskError(
            f"{who}: order {options.order} is of points with x and y, but the network returns {size} values per sample"
        )
    wanted = {"names": size if options.order is None else size // 2, "units": size, "scales": size, "offsets": size}
    for field, count in wanted.items():
        given = len(getattr(options, field))
        if given and given != count:
            each = f"{count} points" if field == "names" and options.order is not None else f"{size} values"
            raise TaskError(f"{who}: {given} {field} for {each} per sample that the network returns; give one for each")
