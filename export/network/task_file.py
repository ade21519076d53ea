"""Tasks as the user declares them, and which of the network's outputs each one is."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.tasks import DENSE_KINDS, Kind, Task, check_tasks
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.reading import DocumentError, check_plain, describe, read_text, shown

from .outputs import Key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLE = "task"


def read_task_file(path: str | PathLike[str]) -> tuple[Task, ...]:
    """Read a TOML file with one ``[[task]]`` table per task.

    The fields are those of :class:`~mtl_deploy.runtime.bundle.tasks.Task`.

    Raises:
        TaskError: the file cannot be read, is not TOML, or a table has a field that is missing, unknown or malformed;
            the message names the file, the number of the table (from 1) and the field.
    """
    file = Path(path)
    tables = _read_tables(file)
    tasks = []
    for number, table in enumerate(tables, start=1):
        where = f"{file}: task {number}"
        try:
            tasks.append(Task.from_dict(table, where))
        except TaskError as error:
            raise _placed(error, where) from error
    try:
        return check_tasks(tasks)
    except TaskError as error:
        raise _placed(error, str(file)) from error


def _read_tables(file: Path) -> Sequence[Mapping[str, Any]]:
    try:
        data = tomllib.loads(read_text(file, encoding="utf-8-sig"))
        check_plain(data)
    except OSError as error:
        raise TaskError(f"task file {file}: {describe(error)}") from error
    except UnicodeDecodeError as error:
        raise TaskError(
            f"task file {file}: not UTF-8 text (byte {error.start}); write it as TOML, encoded as UTF-8"
        ) from error
    except DocumentError as error:
        raise TaskError(f"task file {file}: {error}") from error
    except RecursionError as error:
        raise TaskError(f"task file {file}: not valid TOML: nested too deeply") from error
    except (
        ValueError
    ) as error:  # TOMLDecodeError, and Python's own for numbers of thousands of digits and impossible dates
        raise TaskError(f"task file {file}: not valid TOML: {error}") from error
    if unknown := [key for key in data if key != _TABLE]:
        raise TaskError(
            f"{file}: unknown entry {shown(unknown[0])}; a task file holds [[{_TABLE}]] tables and nothing else"
        )
    tables = data.get(_TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise TaskError(f"{file}: {_TABLE!r} is not a list of tables; begin each task with [[{_TABLE}]]")
    if not tables:
        raise TaskError(f"{file}: no task in it; begin each task with [[{_TABLE}]]")
    return tables


def _placed(error: TaskError, where: str) -> TaskError:
    return error if str(error).startswith(where) else TaskError(f"{where}: {error}")


def bind_tasks(
    tasks: Sequence[Task] | None,
    defaults: Sequence[Task] | None,
    sizes: Mapping[Key, int],
    maps: Mapping[Key, tuple[int, int]] | None = None,
    image: tuple[int, int] = (0, 0),
) -> tuple[Task, ...]:
    """Find which output of the network each task is, and set the tasks' ``output``, ``size`` and, for dense ones, ``stride``.

    A task's output is the one that its ``output`` field names; otherwise the one whose key is the task's name;
    otherwise the one at the task's own position in the list. Every output must be used, unless every task has an
    ``output`` field.

    Args:
        tasks: what the user declared; None if nothing.
        defaults: tasks to use if the user declared none; None if the network implies none.
        sizes: the network's outputs in order, key to size (values per image, for a map its channels).
        maps: height and width of the outputs that are maps, with one value per pixel.
        image: height and width of the image that they were computed from.

    Returns:
        The tasks in the given order, each ``output`` a key of ``sizes``.

    Raises:
        TaskError: no tasks are known, their number, sizes or strides do not fit, an output is unknown, or two tasks share one.
    """
    chosen = tasks if tasks is not None else defaults
    if chosen is None:
        raise TaskError(_proposal(sizes, maps or {}))
    chosen = check_tasks(chosen)
    every_output_given = all(task.output is not None for task in chosen)
    if len(chosen) > len(sizes) or (len(chosen) < len(sizes) and not every_output_given):
        raise TaskError(
            f"{_count(len(chosen), 'task')} ({', '.join(task.name for task in chosen)}) for "
            f"{_count(len(sizes), 'output')} of the network ({_listed(sizes)}): declare one task per output, "
            "or give every task its 'output' to leave outputs out"
        )
    bound: dict[Key, Task] = {}
    for place, task in enumerate(chosen):
        key = _resolve(task, place, list(sizes))
        if (other := bound.get(key)) is not None:
            raise TaskError(
                f"tasks {other.name!r} and {task.name!r} are both bound to output {key!r}; "
                f"give each its own 'output' (outputs: {_listed(sizes)})"
            )
        stride = _stride(task, key, sizes[key], (maps or {}).get(key), image)
        bound[key] = replace(task, output=key).with_size(sizes[key], stride=stride)
    return tuple(bound.values())


def _stride(task: Task, key: Key, size: int, shape: tuple[int, int] | None, image: tuple[int, int]) -> int:
    """Return how many pixels of the image one pixel of an output stands for, per side; 0 for an output that is not a map."""
    if shape is None:
        if task.dense:
            raise TaskError(
                f"task {task.name!r} is {task.kind}, one map per image (N, C, h, w), but output {key!r} gives {size} values per "
                "image; declare it regression, binary or multiclass"
            )
        return 0
    (height, width), (rows, columns) = image, shape
    if not task.dense:
        raise TaskError(
            f"task {task.name!r} is {task.kind}, but output {key!r} is a map of {rows}x{columns}; declare it "
            f"{', '.join(sorted(DENSE_KINDS))}, or flatten it to (N, k) in the network"
        )
    if height % rows or width % columns or height // rows != width // columns:
        raise TaskError(
            f"task {task.name!r}: the output is {rows}x{columns} for {height}x{width}, which is not one whole stride in both "
            "directions; choose an --image-size that all of the network's strides divide (32 suits most), or resize the output "
            "to such a size in the network"
        )
    return height // rows


def _resolve(task: Task, place: int, keys: Sequence[Key]) -> Key:
    if task.output is None:
        return task.name if task.name in keys else keys[place]
    if task.output in keys:
        return task.output
    if isinstance(task.output, int) and 0 <= task.output < len(keys):
        return keys[task.output]
    raise TaskError(
        f"task {task.name!r}: the network has no output {task.output!r}; its outputs are {', '.join(map(repr, keys))}"
    )


def _proposal(sizes: Mapping[Key, int], maps: Mapping[Key, tuple[int, int]]) -> str:
    names = [key if isinstance(key, str) and key.isidentifier() else f"task{n}" for n, key in enumerate(sizes, start=1)]
    options = (
        f"--task {name}={_guess(size, key in maps)}" for name, (key, size) in zip(names, sizes.items(), strict=True)
    )
    return (
        f"the network has {_count(len(sizes), 'output')} ({_listed(sizes)}) and no tasks are declared; name them with "
        f"--tasks FILE, or for example {' '.join(options)} (an output of size 1 can also be binary)"
    )


def _guess(size: int, dense: bool) -> Kind:
    if dense:
        return "depth" if size == 1 else "normals" if size == 3 else "segmentation"
    return "regression" if size == 1 else "multiclass"


def _listed(sizes: Mapping[Key, int]) -> str:
    return ", ".join(f"{key!r} of size {size}" for key, size in sizes.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
