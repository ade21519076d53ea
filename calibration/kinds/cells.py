"""Labels as they are written in cells of a table: numbers, classes, and what stands for an unknown one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError

from .base import Labels

UNKNOWN = -1  # for a class; NaN for a number
BETWEEN = "\x1f"
"""Stands between the cells of a task that has several columns."""
EMPTY = frozenset(("", "nan", "na", "n/a", "none", "null"))
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}")  # 1.500 is 1.5 or fifteen hundred
_MOST_CLASSES = 1 << 31  # if their number is not known


def known(values: Labels) -> npt.NDArray[np.bool_]:
    """Return ``(N,) bool``: of which images labels are known: all numbers of a row, or one of several classes."""
    rows = values.reshape(len(values), -1)
    present = ~np.isnan(rows).any(axis=1) if rows.dtype.kind == "f" else np.not_equal(rows, UNKNOWN).any(axis=1)
    return np.asarray(present, np.bool_)


def number(text: str, *, comma: bool) -> float:
    """Read a number as table programs write it, in ASCII digits; Python's own ``1_0`` is none.

    Args:
        text: without spaces around it.
        comma: whether a comma in it is a decimal one.

    Raises:
        ValueError: it is no number.
    """
    written = text.replace(",", ".") if comma and text.count(",") == 1 and "." not in text else text
    if _NUMBER.fullmatch(written) is None:
        raise ValueError(text)
    return float(written)


def doubtful(cells: Sequence[str]) -> list[str]:
    """Return the numbers of a column that may be grouped by thousands: such as ``1.500`` where another cell has a decimal comma.

    Args:
        cells: of one column, in a file where numbers may have a decimal comma.
    """
    if not ("," in "".join(cells) and "." in "".join(cells)):
        return []
    return [cell for cell in cells if _GROUPED.fullmatch(cell)]


def index(cell: str, count: int | None, *, comma: bool = False) -> int | None:
    """Read an index; spreadsheets may write 1 as 1.0. -1 is unknown."""
    try:
        found = number(cell, comma=comma)
    except ValueError:
        return None
    return int(found) if found.is_integer() and UNKNOWN <= found < (count or _MOST_CLASSES) else None


def numbers(task: Task, cells: Sequence[str], width: int, *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
    """Read cells that hold ``width`` numbers each, with spaces between; ``(N, width)``, NaN where unknown."""
    problems: dict[int, str] = {}
    found = np.full((len(cells), width), np.nan)
    unclear = set(doubtful(cells) if comma and width == 1 else ())
    for i, cell in enumerate(cells):
        try:
            row = [] if cell.lower() in EMPTY else [number(part, comma=comma) for part in cell.split()]
        except ValueError:
            row = [np.inf]
        if cell in unclear:
            problems[i] = f"{task.name} {cell!r} is unclear, since the column has numbers with commas and with points"
        elif row and (len(row) != width or not np.isfinite(row).all()):
            problems[i] = f"{task.name} {cell!r} is not {'a number' if width == 1 else f'{width} numbers'}"
        elif row:
            found[i] = row
    return found, problems


def class_labels(
    task: Task, cells: Sequence[str], count: int | None, *, comma: bool = False
) -> tuple[Labels, dict[int, str]]:
    """Read cells that hold a class each, by its label or its index.

    If every cell is a label, they are labels; if not, and every cell is an index, they are indices; otherwise a cell that is a
    label counts as one, and the others as indices.
    """
    problems: dict[int, str] = {}
    exact: Mapping[str, int] = {label: i for i, label in enumerate(task.labels)}
    loose = {label.lower(): i for i, label in enumerate(task.labels)}
    filled = [cell for cell in cells if cell.lower() not in EMPTY or cell in exact]
    indices_alone = not all(cell.lower() in loose for cell in filled) and all(
        index(cell, count, comma=comma) is not None for cell in filled
    )
    found = np.full(len(cells), UNKNOWN, np.int64)
    for i, cell in enumerate(cells):
        value = None if indices_alone else exact.get(cell, loose.get(cell.lower()))
        value = index(cell, count, comma=comma) if value is None else value
        if value is not None:
            found[i] = value
        elif cell.lower() not in EMPTY:
            words = f"one of {', '.join(task.labels)} or " if task.labels else ""
            problems[i] = f"{task.name} {cell!r} is not {words}an index{f' from 0 to {count - 1}' if count else ''}"
    return found, problems


def one_per_image(array: Labels, width: int | None, where: str) -> Labels:
    """Return an array of labels as ``(N,)``, or ``(N, width)``.

    Raises:
        ImageError: it has another shape.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape[1:] != (() if width is None else (width,)):
        raise ImageError(
            f"{where}: shape {array.shape}; expected one label per image{f', of {width} values' if width else ''}"
        )
    return array


def require_numbers(array: Labels, where: str, *, or_text: bool) -> None:
    """Refuse an array that does not hold numbers.

    Raises:
        ImageError: it does not.
    """
    if array.dtype.kind not in "biuf":
        raise ImageError(f"{where}: type {array.dtype}; expected numbers{' or text' if or_text else ''}")


def class_array(array: Labels, count: int | None, where: str) -> Labels:
    """Return class indices that come as numbers, -1 where unknown; NaN and -1 count as unknown.

    Raises:
        ImageError: a value is no index.
    """
    found = np.nan_to_num(array.astype(np.float64), nan=UNKNOWN, posinf=-2, neginf=-2)
    if ((found < UNKNOWN) | (found != np.floor(found)) | (found >= (count or _MOST_CLASSES))).any():
        limit = f" from 0 to {count - 1}" if count else ""
        raise ImageError(f"{where}: holds values that are no index{limit}, nor -1 for unknown")
    return found.astype(np.int64)


def number_array(array: Labels, where: str) -> Labels:
    """Return numbers as float64, NaN where unknown.

    Raises:
        ImageError: one is infinite.
    """
    if np.isinf(array).any():
        raise ImageError(f"{where}: holds infinite values; write NaN where a label is not known")
    return array.astype(np.float64)


def texts(array: Labels) -> list[str]:
    """Return an array of text as cells."""
    return [str(cell).strip() for cell in array]
