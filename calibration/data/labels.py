"""Labels of vector tasks: from a CSV file or from arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError

from .cells import doubtful, number, read_csv
from .names import folded

Labels = npt.NDArray[Any]

UNKNOWN = -1  # for a class; NaN for a regression

_EMPTY = frozenset(("", "nan", "na", "n/a", "none", "null"))
_SHOWN = 3  # items that a warning lists
_MOST_CLASSES = 1 << 31  # if their number is not known


@dataclass(frozen=True)
class FileLabels:
    """The labels of a list of image files.

    Attributes:
        values: by task, one label per file, in the order of the files; see
            :class:`~mtl_deploy.calibration.data.dataset.CalibrationData`.
        malformed: by file whose name does not have the data set's form, the reason.
        warnings: one sentence each.
    """

    values: dict[str, Labels] = field(default_factory=dict)
    malformed: dict[Path, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def classes(task: Task) -> int | None:
    """Return the number of a task's classes; None if it is not known."""
    return 2 if task.kind == "binary" else len(task.labels) or task.size or None


def known(values: Labels) -> npt.NDArray[np.bool_]:
    """Return ``(N,) bool``: which labels are known."""
    rows = values.reshape(len(values), -1)
    present = ~np.isnan(rows) if rows.dtype.kind == "f" else np.not_equal(rows, UNKNOWN)
    return np.asarray(present.all(axis=1), np.bool_)


def csv_labels(file: Path, source: Path, paths: Sequence[Path], tasks: Sequence[Task]) -> FileLabels:
    """Read labels from a CSV file with a column ``file`` and one column per task.

    Args:
        file: in UTF-8, separated by commas, semicolons or tabs; a first line ``sep=;`` says by what. Between semicolons or tabs
            numbers may have a decimal comma. The column ``file`` holds a path relative to the CSV file or to
            ``source``, an absolute path, or a bare name if only one image has it; a name that no image has counts for the one that
            it means in another spelling, see :mod:`~mtl_deploy.calibration.data.names`. A regression's column holds values in the
            task's unit (several are separated by spaces); a class is given by its label or by its index. An empty cell is unknown.
        source: the images' folder or list.
        paths: of the images.
        tasks: the tasks to read labels for; other columns are ignored.

    Raises:
        OptionError: the file cannot be read, lacks a column, contradicts itself, or nothing in it can be used.
    """
    titles, rows, numbers, comma = read_csv(file)
    named = _column(file, titles, "file")
    if named is None:
        raise OptionError(f"{file}: no column 'file'; the columns are {', '.join(titles)}")
    columns = {task.name: _column(file, titles, task.name) for task in tasks}
    known = {name: column for name, column in columns.items() if column is not None}
    if not known:
        raise OptionError(
            f"{file}: no column is named after a task; the tasks are {', '.join(task.name for task in tasks)}, the columns "
            f"{', '.join(titles)}"
        )
    names = [row[named] for row in rows]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        first = seen.setdefault(name, i)
        if any(rows[i][column] != rows[first][column] for column in known.values()):
            raise OptionError(f"{file}: lines {numbers[first]} and {numbers[i]} give {name} different labels")
    matched = _match(names, (file.parent, source if source.is_dir() else source.parent), paths)
    for rows_of in matched:
        for other in rows_of[1:]:
            if any(rows[other][column] != rows[rows_of[0]][column] for column in known.values()):
                raise OptionError(
                    f"{file}: lines {numbers[rows_of[0]]} and {numbers[other]} give one image, {names[rows_of[0]]} and "
                    f"{names[other]}, different labels"
                )
    used = sorted({rows_of[0] for rows_of in matched if rows_of})
    if not used:
        raise OptionError(
            f"{file}: none of its {len(rows)} files is an image of {source}; the first one is {names[0]!r}{_elsewhere(names[0])}"
        )
    warnings = []
    if missing := [path.name for path, row in zip(paths, matched, strict=True) if not row]:
        warnings.append(f"{file.name}: no line for {_some(missing)} of {len(paths)} images")
    if absent := sorted(set(names) - {names[row] for rows_of in matched for row in rows_of}):
        warnings.append(f"{file.name}: no image for {_some(absent)} of {len(rows)} lines")
    values: dict[str, Labels] = {}
    for task in tasks:
        if task.name not in known:
            continue
        column, problems = parse_labels(task, [rows[row][known[task.name]] for row in used], comma=comma)
        listed = [f"line {numbers[used[i]]}: {problem}" for i, problem in problems.items()]
        if len(problems) == len(used):
            raise OptionError(f"{file}: no label of task {task.name!r} can be used; {listed[0]}")
        if listed:
            warnings.append(f"{file.name}: {_some(listed, 'labels')} cannot be used and count as unknown")
        values[task.name] = np.full((len(paths), *column.shape[1:]), _unknown(task), column.dtype)
        place = {row: i for i, row in enumerate(used)}
        for i, rows_of in enumerate(matched):
            if rows_of:
                values[task.name][i] = column[place[rows_of[0]]]
    return FileLabels(values, {}, tuple(warnings))


def _column(file: Path, titles: Sequence[str], name: str) -> int | None:
    """Return the column of a name: the one with this very name, else the one that has it in another case; None: there is none."""
    same = [i for i, title in enumerate(titles) if title.lower() == name.lower()]
    exact = [i for i in same if titles[i] == name]
    if len(found := exact or same) > 1:
        raise OptionError(
            f"{file}: {len(found)} columns are named {name!r} ({', '.join(titles[i] for i in found)}); leave or rename all but one"
        )
    return found[0] if found else None


def _elsewhere(name: str) -> str:
    """For an error: what to do about the absolute path of another machine."""
    absolute = PureWindowsPath(name).is_absolute() or Path(name).is_absolute()
    return ", an absolute path; write paths relative to the CSV file or to the images" if absolute else ""


def _match(names: Sequence[str], folders: Sequence[Path], paths: Sequence[Path]) -> list[list[int]]:
    """Return for each image the lines that name it; a bare name stands for the only image that has it.

    The lines with the image's very name count; where there are none, those that can only mean it in another spelling.
    """
    found: list[list[int]] = [[] for _ in paths]
    for spelling in (str, folded):
        by_path: list[dict[str, list[int]]] = [{} for _ in folders]
        by_name: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            by_name.setdefault(spelling(name), []).append(i)
            for lines, folder in zip(by_path, folders, strict=True):
                as_path = name.replace("\\", "/") if spelling is folded else name
                lines.setdefault(spelling(_absolute(folder / as_path)), []).append(i)
        same_path: dict[str, set[str]] = {}
        same_name: dict[str, set[str]] = {}
        for path in paths:
            same_path.setdefault(spelling(_absolute(path)), set()).add(_absolute(path))
            same_name.setdefault(spelling(path.name), set()).add(_absolute(path))
        for i, path in enumerate(paths):
            key = spelling(_absolute(path))
            candidates = [lines.get(key, []) for lines in by_path if len(same_path[key]) == 1]
            if len(same_name[spelling(path.name)]) == 1:
                candidates.append(by_name.get(spelling(path.name), []))
            found[i] = found[i] or next(filter(None, candidates), [])
    return found


def _absolute(path: Path) -> str:
    return os.path.normpath(path.absolute())  # links are not followed: two may lead to one file


def parse_labels(task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
    """Read the cells of one task's column.

    A column of a class task holds labels or indices. If every cell is a label, they are labels; if not, and every cell is an index,
    they are indices; otherwise a cell that is a label counts as one, and the others as indices.

    Args:
        task: whose column it is.
        cells: as they are written.
        comma: whether numbers may have a decimal comma.

    Returns:
        the labels, unknown where a cell is empty or cannot be used; and by position of a cell that cannot be used, the reason.
    """
    problems: dict[int, str] = {}
    unknown = _unknown(task)
    if task.kind == "regression":
        width = max(task.size, 1)
        numbers = np.full((len(cells), width), unknown)
        unclear = set(doubtful(cells) if comma and width == 1 else ())
        for i, cell in enumerate(cells):
            try:
                row = [] if cell.lower() in _EMPTY else [number(part, comma=comma) for part in cell.split()]
            except ValueError:
                row = [np.inf]
            if cell in unclear:
                problems[i] = (
                    f"{task.name} {cell!r} is unclear, since the column has numbers with commas and with points"
                )
            elif row and (len(row) != width or not np.isfinite(row).all()):
                problems[i] = f"{task.name} {cell!r} is not {'a number' if width == 1 else f'{width} numbers'}"
            elif row:
                numbers[i] = row
        return (numbers[:, 0] if width == 1 else numbers), problems
    count = classes(task)
    exact: Mapping[str, int] = {label: i for i, label in enumerate(task.labels)}
    loose = {label.lower(): i for i, label in enumerate(task.labels)}
    filled = [cell for cell in cells if cell.lower() not in _EMPTY or cell in exact]
    indices_alone = not all(cell.lower() in loose for cell in filled) and all(
        _index(cell, count, comma=comma) is not None for cell in filled
    )
    found = np.full(len(cells), UNKNOWN, np.int64)
    for i, cell in enumerate(cells):
        value = None if indices_alone else exact.get(cell, loose.get(cell.lower()))
        value = _index(cell, count, comma=comma) if value is None else value
        if value is not None:
            found[i] = value
        elif cell.lower() not in _EMPTY:
            words = f"one of {', '.join(task.labels)} or " if task.labels else ""
            problems[i] = f"{task.name} {cell!r} is not {words}an index{f' from 0 to {count - 1}' if count else ''}"
    return found, problems


def array_labels(task: Task, array: Labels, where: str) -> Labels:
    """Check labels that come as an array: numbers, or text for classes; NaN and -1 count as unknown.

    Raises:
        ImageError: the shape, the type or a value does not fit the task.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    size = task.size if task.kind == "regression" and task.size > 1 else None  # values per label
    if array.shape[1:] != (() if size is None else (size,)):
        raise ImageError(
            f"{where}: shape {array.shape}; expected one label per image{f', of {size} values' if size else ''}"
        )
    if array.dtype.kind == "U":
        values, problems = parse_labels(task, [str(cell).strip() for cell in array])
        if problems:
            raise ImageError(f"{where}: {next(iter(problems.values()))}")
        return values
    if array.dtype.kind not in "biuf":
        raise ImageError(
            f"{where}: type {array.dtype}; expected numbers{'' if task.kind == 'regression' else ' or text'}"
        )
    if task.kind == "regression":
        if np.isinf(array).any():
            raise ImageError(f"{where}: holds infinite values; write NaN where a label is not known")
        return array.astype(np.float64)
    numbers = np.nan_to_num(array.astype(np.float64), nan=UNKNOWN, posinf=-2, neginf=-2)
    count = classes(task)
    if ((numbers < UNKNOWN) | (numbers != np.floor(numbers)) | (numbers >= (count or _MOST_CLASSES))).any():
        limit = f" from 0 to {count - 1}" if count else ""
        raise ImageError(f"{where}: holds values that are no index{limit}, nor -1 for unknown")
    return numbers.astype(np.int64)


def _index(cell: str, count: int | None, *, comma: bool = False) -> int | None:
    """Read an index; spreadsheets may write 1 as 1.0. -1 is unknown."""
    try:
        index = number(cell, comma=comma)
    except ValueError:
        return None
    return int(index) if index.is_integer() and UNKNOWN <= index < (count or _MOST_CLASSES) else None


def _unknown(task: Task) -> float | int:
    return float("nan") if task.kind == "regression" else UNKNOWN


def _some(items: Sequence[str], noun: str = "") -> str:
    shown = ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
    return f"{len(items)}{noun and ' ' + noun} ({shown})"
