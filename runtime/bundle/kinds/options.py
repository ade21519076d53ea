"""Fields of a task that only its kind has: declared once, read from JSON and from a command line, written back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from typing import Any

from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.files.json_schema import Schema

from .base import TaskKind
from .registry import KINDS, task_kind


def option(
    schema: Schema, *, default: Any = MISSING, read: Callable[[str], Any] | None = None, form: str = "", doc: str = ""
) -> Any:
    """Declare one field of a kind's options, in a frozen dataclass.

    Args:
        schema: what its value is in JSON and in a task file: a JSON Schema (draft 2020-12).
        default: the value where it is not given; without one it is required. A list in JSON is a tuple here, at any depth.
        read: turns the text of ``--task 'name=kind;field=value'`` into the value as JSON has it, or raises ValueError; None: by the
            schema's type (``integer``, ``number``, ``boolean``; of an ``array`` numbers or words between commas), else text.
        form: what to write instead, after "...cannot be 'value'; ".
        doc: what it means, in one sentence.
    """
    return field(default=default, metadata={"schema": schema, "read": read, "form": form, "doc": doc})


def option_names(kind: TaskKind) -> tuple[str, ...]:
    """Return the names of a kind's own fields."""
    return () if kind.options is None else tuple(each.name for each in fields(kind.options))


def option_schemas(kind: TaskKind) -> dict[str, Schema]:
    """Return the JSON Schema of each of a kind's own fields."""
    return {} if kind.options is None else {each.name: each.metadata["schema"] for each in fields(kind.options)}


def read_options(kind: TaskKind, data: Mapping[str, Any], where: str) -> Any:
    """Return a kind's options from a task's table; None where the kind has none.

    Args:
        kind: the task's.
        data: the table, whose values fit :func:`option_schemas`.
        where: how errors call the task.

    Raises:
        TaskError: a field is missing, or the kind refuses a value.
    """
    if kind.options is None:
        return None
    held = fields(kind.options)
    missing = [each.name for each in held if each.default is MISSING and each.name not in data]
    if missing:
        raise TaskError(f"{where}: {kind.called} needs {missing[0]}")
    return kind.options(**{each.name: _frozen(data[each.name]) for each in held if each.name in data})


def write_options(options: Any) -> dict[str, Any]:
    """Return a kind's options as a JSON-ready dict; empty for None."""
    return {} if options is None else {each.name: _plain(getattr(options, each.name)) for each in fields(options)}


def option_readers(kind: TaskKind) -> dict[str, tuple[Callable[[str], Any], str]]:
    """Return by name of a kind's own field how its text is read, and what to write where that fails."""
    found = {}
    for each in () if kind.options is None else fields(kind.options):
        schema = each.metadata["schema"]
        of_numbers = schema.get("type") == "array" and schema["items"].get("type") in ("number", "integer")
        read = each.metadata["read"] or (_numbers if of_numbers else _BY_TYPE.get(str(schema.get("type")), str))
        form = _FORMS.get(str(schema.get("type")), "see the documentation of this kind")
        found[each.name] = (read, each.metadata["form"] or form)
    return found


def owners(name: str) -> list[str]:
    """Return the kinds that have an own field of this name."""
    return [kind for kind in KINDS if name in option_names(task_kind(kind))]


def truth(text: str) -> bool:
    """Read ``true`` or ``false``; ValueError for anything else."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _numbers(text: str) -> list[float]:
    return [int(part) if part.strip().lstrip("+-").isdecimal() else float(part) for part in text.split(",")]


def _items(text: str) -> list[Any]:
    try:
        return _numbers(text)
    except ValueError:
        return [part.strip() for part in text.split(",")]


_FORMS = {"integer": "write a whole number", "number": "write a number", "boolean": "write true or false"}
_BY_TYPE: Mapping[str, Callable[[str], Any]] = {
    "integer": int,
    "number": float,
    "boolean": truth,
    "array": _items,
}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
