"""Tasks as the user declares them in a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bundle.tasks import Task, check_tasks
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.reading import DocumentError, check_plain, describe, read_text, shown

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
