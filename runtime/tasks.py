"""Tasks: what each output of a multi-task network means and how it is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from .errors import TaskError

Kind = Literal["regression", "binary", "multiclass"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_RESERVED = {"image"}  # the name of the graph's input


@dataclass(frozen=True)
class Task:
    """One named output of a network.

    Attributes:
        name: unique in its network; the name of the graph's output and of ``separate/<name>.onnx``.
        kind: ``regression`` (value = raw * scale + offset), ``binary`` (one logit, or two for a softmax head) or
            ``multiclass`` (a logit a class).
        labels: class names in the order of the network's outputs; for ``binary``: negative, positive. May be empty.
        unit: the unit of a regression's value, for example ``years``.
        output: the network's own key (dict, named tuple) or position (tuple) of this output; None: the key that is
            called like the task, or the place in the list of tasks.
        size: number of values a sample, the last dimension of the raw output; 0 until it is known.
        scale: factor from the network's raw output to the unit (regression only).
        offset: added after ``scale``, in the unit (regression only).
        threshold: probability from which a binary task says "positive".
    """

    name: str
    kind: Kind
    labels: tuple[str, ...] = ()
    unit: str | None = None
    output: str | int | None = None
    size: int = 0
    scale: float = 1.0
    offset: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields against one another.

        Raises:
            TaskError: a field is malformed or does not fit the kind.
        """
        if not _NAME.fullmatch(self.name):
            raise TaskError(
                f"task name {self.name!r}: use a letter or '_' first, then letters, digits, '_', '.' or '-' "
                "(it names a graph output and a file)"
            )
        if self.name in _RESERVED:
            raise TaskError(f"task name {self.name!r} is reserved for the graph's input; choose another")
        if self.kind not in KINDS:
            raise TaskError(f"task {self.name!r}: unknown kind {self.kind!r}; known kinds: {', '.join(KINDS)}")
        if self.kind == "regression" and self.labels:
            raise TaskError(f"task {self.name!r}: a regression has a unit, not labels")
        if self.kind != "regression" and self.unit is not None:
            raise TaskError(f"task {self.name!r}: only a regression has a unit, this is {self.kind}")
        if self.kind != "regression" and (self.scale, self.offset) != (1.0, 0.0):
            raise TaskError(f"task {self.name!r}: only a regression has scale and offset, this is {self.kind}")
        if self.kind == "binary" and len(self.labels) not in (0, 2):
            raise TaskError(
                f"task {self.name!r}: a binary task has two labels (negative, positive), got {len(self.labels)}: "
                f"{', '.join(self.labels)}"
            )
        if len(set(self.labels)) != len(self.labels):
            raise TaskError(f"task {self.name!r}: labels repeat: {', '.join(self.labels)}")
        if not 0.0 < self.threshold < 1.0:
            raise TaskError(f"task {self.name!r}: threshold {self.threshold} is not between 0 and 1")
        if self.size:
            self._check_size(self.size)

    def _check_size(self, size: int) -> None:
        if self.kind == "binary" and size not in (1, 2):
            raise TaskError(
                f"task {self.name!r} is binary but the network gives {size} values a sample; "
                "a binary head gives 1 (a logit) or 2; declare it multiclass"
            )
        if self.kind == "multiclass" and size < 2:
            raise TaskError(
                f"task {self.name!r} is multiclass but the network gives {size} value a sample; "
                "declare it binary or regression"
            )
        if self.kind == "multiclass" and self.labels and len(self.labels) != size:
            raise TaskError(
                f"task {self.name!r} has {len(self.labels)} labels but the network gives {size} values a sample"
            )

    def with_size(self, size: int) -> Task:
        """Return the task with the size of its raw output (values a sample).

        Raises:
            TaskError: the size does not fit the kind or the labels.
        """
        self._check_size(size)
        return replace(self, size=size)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; fields that do not apply to the kind are left out."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind, "size": self.size}
        if self.labels:
            data["labels"] = list(self.labels)
        if self.output is not None:
            data["output"] = self.output
        if self.kind == "regression":
            data |= {"unit": self.unit, "scale": self.scale, "offset": self.offset}
        if self.kind == "binary":
            data["threshold"] = self.threshold
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "task") -> Task:
        """Make a task from a mapping such as :meth:`to_dict`'s or a table of a task file.

        Args:
            data: the fields; ``name`` and ``kind`` are required.
            where: how errors call the place that the mapping comes from.

        Raises:
            TaskError: a field is missing, unknown, of the wrong type or does not fit.
        """
        known = {"name", "kind", "labels", "unit", "output", "size", "scale", "offset", "threshold"}
        if unknown := sorted(set(data) - known):
            raise TaskError(f"{where}: unknown field {unknown[0]!r}; known fields: {', '.join(sorted(known))}")
        if missing := [field for field in ("name", "kind") if field not in data]:
            raise TaskError(f"{where}: field {missing[0]!r} is missing")
        labels = data.get("labels", ())
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise TaskError(f"{where}: labels must be a list of strings, got {labels!r}")
        for field, types in _FIELD_TYPES.items():
            if field in data and (not isinstance(data[field], types) or isinstance(data[field], bool)):
                raise TaskError(f"{where}: field {field!r} cannot be {data[field]!r}")
        return cls(**{**data, "labels": tuple(labels), "kind": cast("Kind", data["kind"])})


_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "kind": (str,),
    "unit": (str, type(None)),
    "output": (str, int, type(None)),
    "size": (int,),
    "scale": (int, float),
    "offset": (int, float),
    "threshold": (int, float),
}


def parse_task(text: str) -> Task:
    """Read a task written as ``NAME=KIND`` or ``NAME=KIND:label,label`` (for a regression ``NAME=regression:unit``).

    Raises:
        TaskError: the text has another form, or the task is malformed.
    """
    name, equals, rest = text.partition("=")
    kind, colon, details = rest.partition(":")
    if not equals or not kind:
        raise TaskError(f"task {text!r}: write NAME=KIND or NAME=KIND:label,label (kinds: {', '.join(KINDS)})")
    fields: dict[str, Any] = {"name": name.strip(), "kind": kind.strip()}
    if colon and fields["kind"] == "regression":
        fields["unit"] = details.strip()
    elif colon:
        fields["labels"] = [label.strip() for label in details.split(",")]
    return Task.from_dict(fields, where=f"task {text!r}")


def check_tasks(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """Return the tasks as a tuple, once their names are known to differ.

    Raises:
        TaskError: there is none, or two share a name (names that differ in case alone count as one: they name files).
    """
    checked = tuple(tasks)
    if not checked:
        raise TaskError("no task is given; name at least one")
    seen: dict[str, str] = {}
    for task in checked:
        if (other := seen.get(task.name.lower())) is not None:
            raise TaskError(f"two tasks are called {other!r} and {task.name!r}; names must differ, not only in case")
        seen[task.name.lower()] = task.name
    return checked
