"""Labels in UTKFace's file names: age, gender and race."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.cells import UNKNOWN
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task

from .labels import FileLabels, Labels

_UTKFACE = re.compile(r"(\d{1,3})_(\d{1,2})_(\d{1,2})_\d{8,}(?!\d).*")
_UTKFACE_FORM = "[age]_[gender]_[race]_[date]"
_OLDEST = 116  # "age is an integer from 0 to 116"
_UTKFACE_CLASSES: dict[str, tuple[tuple[str, ...], ...]] = {  # by UTKFace's index, its names
    "gender": (("male", "man", "m"), ("female", "woman", "f")),
    "race": (("white",), ("black",), ("asian",), ("indian",), ("others", "other")),
}


def utkface_labels(paths: Sequence[Path], tasks: Sequence[Task]) -> FileLabels | None:
    """Read age, gender and race from UTKFace's file names.

    Source: https://susanqq.github.io/UTKFace/ (``[age]_[gender]_[race]_[date&time].jpg``; 0 male, 1 female; 0 White, 1 Black,
    2 Asian, 3 Indian, 4 Others). A few of its own names lack a field. If a task's labels are these words, in any order, the words
    decide; otherwise the indices do.

    Args:
        paths: of the images.
        tasks: those called ``age``, ``gender`` and ``race`` get labels.

    Returns:
        None if no task has such a name, or if fewer than half of the file names have the form: then it is not this data set.
    """
    served = {task.name.lower(): task for task in tasks if task.name.lower() in ("age", "gender", "race")}
    matches = [_UTKFACE.fullmatch(path.name) for path in paths]
    if not served or 2 * sum(match is not None for match in matches) < len(paths):
        return None
    malformed: dict[Path, str] = {}
    fields = np.full((len(paths), 3), UNKNOWN, np.int64)
    for row, path, match in zip(fields, paths, matches, strict=True):
        row[:] = [int(text) for text in match.groups()] if match else UNKNOWN
        if reason := _out_of_form(*row) if match else f"its name is not of UTKFace's form {_UTKFACE_FORM}":
            malformed[path] = reason
            row[:] = UNKNOWN
    values: dict[str, Labels] = {}
    warnings: list[str] = []
    for position, name in enumerate(("age", "gender", "race")):
        if (task := served.get(name)) is None:
            continue
        column = fields[:, position]
        kind = kind_of(task)
        if not (kind.takes_number(task) if name == "age" else kind.chooses):
            warnings.append(f"{task.name}: UTKFace's names do not give the labels of a {task.kind} task; none are used")
        elif name == "age":
            values[task.name] = np.where(column < 0, np.nan, column.astype(np.float64))
        else:
            table, warning = _utkface_classes(task, name)
            values[task.name] = np.where(column < 0, UNKNOWN, table[column])
            warnings += warning
    return FileLabels(values, malformed, tuple(warnings))


def _out_of_form(age: int, gender: int, race: int) -> str | None:
    limits = (("age", age, _OLDEST), ("gender", gender, 1), ("race", race, 4))
    wrong = [f"{name} {value} is not 0 to {limit}" for name, value, limit in limits if value > limit]
    return f"its name is not of UTKFace's form {_UTKFACE_FORM}: {'; '.join(wrong)}" if wrong else None


def _utkface_classes(task: Task, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the task's class by UTKFace's index, and a warning if the task's own labels do not tell the order."""
    words = _UTKFACE_CLASSES[name]
    own = [label.lower() for label in task.labels]
    found = [next((i for i, label in enumerate(own) if label in names), UNKNOWN) for names in words]
    if own and set(range(len(own))) <= set(found):
        return np.array(found, np.int64), []
    count = kind_of(task).classes(task) or len(words)
    table = np.array([i if i < count else UNKNOWN for i in range(len(words))], np.int64)
    if not own:
        return table, []
    meaning = ", ".join(f"{i} {names[0]}" for i, names in enumerate(words))
    return table, [
        f"{task.name}: its labels ({', '.join(task.labels)}) are not UTKFace's; its indices are used as they are ({meaning})"
    ]
