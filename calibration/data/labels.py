"""Labels of vector tasks: from a CSV file or from arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np

from mtl_deploy.calibration.kinds.base import Labels
from mtl_deploy.calibration.kinds.cells import BETWEEN, known
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError

from .cells import read_csv
from .names import folded

__all__ = ["FileLabels", "Labels", "NoColumnError", "array_labels", "csv_labels", "known", "parse_labels"]

_SHOWN = 3  # items that a warning lists


class NoColumnError(OptionError):
    """No column of a table holds labels of a task of the network."""


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
        NoColumnError: it has no column of any of the tasks.
        OptionError: the file cannot be read, lacks a column, contradicts itself, or nothing in it can be used.
    """
    if not tasks:
        raise NoColumnError(
            f"{file}: no task of this network has its labels in a table; give a folder (pairs of images are read from TASK.csv in "
            "it), or boxes in COCO's format"
        )
    titles, rows, numbers, comma = read_csv(file)
    named = _column(file, titles, "file")
    if named is None:
        pairs = [title.lower() for title in titles] == ["a", "b", "same"]
        hint = "; pairs of images are read from TASK.csv in a folder: --labels FOLDER" if pairs else ""
        raise OptionError(f"{file}: no column 'file'; the columns are {', '.join(titles)}{hint}")
    held = {task.name: columns for task in tasks if (columns := _columns(file, titles, task, tasks))}
    if not held:
        raise NoColumnError(
            f"{file}: no column is named after a task; the tasks are {', '.join(task.name for task in tasks)}, the columns "
            f"{', '.join(titles)}"
        )
    names = [row[named] for row in rows]
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        first = seen.setdefault(name, i)
        if any(rows[i][column] != rows[first][column] for each in held.values() for column in each):
            raise OptionError(f"{file}: lines {numbers[first]} and {numbers[i]} give {name} different labels")
    matched = _match(names, (file.parent, source if source.is_dir() else source.parent), paths)
    for rows_of in matched:
        for other in rows_of[1:]:
            if any(rows[other][column] != rows[rows_of[0]][column] for each in held.values() for column in each):
                raise OptionError(
                    f"{file}: lines {numbers[rows_of[0]]} and {numbers[other]} give one image, {names[rows_of[0]]} and "
                    f"{names[other]}, different labels"
                )
    used = sorted({rows_of[0] for rows_of in matched if rows_of})
    if not used:
        raise OptionError(
            f"{file}: none of its files ({len(rows)}) is an image of {source}; "
            f"the first one is {names[0]!r}{_elsewhere(names[0])}"
        )
    warnings = []
    if missing := [path.name for path, row in zip(paths, matched, strict=True) if not row]:
        warnings.append(f"{file.name}: no line for {_some(missing)} of {len(paths)} images")
    if absent := sorted(set(names) - {names[row] for rows_of in matched for row in rows_of}):
        warnings.append(f"{file.name}: no image for {_some(absent)} of {len(rows)} lines")
    values: dict[str, Labels] = {}
    for task in tasks:
        if task.name not in held:
            continue
        cells = [BETWEEN.join(rows[row][column] for column in held[task.name]) for row in used]
        column, problems = parse_labels(task, cells, comma=comma)
        listed = [f"line {numbers[used[i]]}: {problem}" for i, problem in problems.items()]
        if len(problems) == len(used):
            raise OptionError(f"{file}: no label of task {task.name!r} can be used; {listed[0]}")
        if listed:
            warnings.append(f"{file.name}: {_some(listed, 'labels')} cannot be used and count as unknown")
        values[task.name] = np.full((len(paths), *column.shape[1:]), kind_of(task).unknown, column.dtype)
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


def _columns(file: Path, titles: Sequence[str], task: Task, tasks: Sequence[Task]) -> list[int]:
    """Return the columns of a task, in the order of its kind; none if the file has none of them.

    Raises:
        OptionError: the file has some of them, or several of one name.
    """
    others = {other.name.lower() for other in tasks if other is not task}
    most: tuple[int, list[str]] = (0, [])
    for names in kind_of(task).column_forms(task):
        found = {name: None if name.lower() == "file" else _column(file, titles, name) for name in names}
        lacking = [name for name, column in found.items() if column is None]
        if found and not lacking:
            return [column for column in found.values() if column is not None]
        there = [name for name in found.keys() - set(lacking) if name.lower() not in others]
        most = max(most, (len(there), lacking))
    if most[0] > 0:
        shown = ", ".join(most[1][:_SHOWN]) + (", ..." if len(most[1]) > _SHOWN else "")
        raise OptionError(f"{file}: columns of task {task.name!r} are missing: {shown}")
    start = f"{task.name.lower()}."
    meant = [name for names in kind_of(task).column_forms(task) for name in names if name.lower().startswith(start)]
    strange = [title for title in titles if title.lower().startswith(start)]
    if meant and strange:
        those, own = (", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN) for names in (strange, meant))
        raise OptionError(f"{file}: task {task.name!r} has no columns called {those}; its columns are {own}")
    return []


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

    Args:
        task: whose column it is.
        cells: as they are written.
        comma: whether numbers may have a decimal comma.

    Returns:
        the labels, unknown where a cell is empty or cannot be used; and by position of a cell that cannot be used, the reason.
    """
    return kind_of(task).parse(task, cells, comma=comma)


def array_labels(task: Task, array: Labels, where: str) -> Labels:
    """Check labels that come as an array: numbers, or text for classes; NaN and -1 count as unknown.

    Raises:
        ImageError: the shape, the type or a value does not fit the task.
    """
    return kind_of(task).from_array(task, array, where)


def _some(items: Sequence[str], noun: str = "") -> str:
    shown = ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
    return f"{len(items)}{noun and ' ' + noun} ({shown})"
