"""Tasks written as one word, as on a command line: ``gender=binary:male,female;activation=sigmoid``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mtl_deploy.runtime.errors import TaskError

from .kinds.options import option_readers, truth
from .kinds.registry import KINDS, task_kind
from .tasks import Task

FORM = "NAME=KIND[:LABEL,...][;FIELD=VALUE...]"


def parse_task(text: str) -> Task:
    """Read a task written as ``NAME=KIND``, ``NAME=KIND:label,label`` or, for a regression or depth, ``NAME=regression:unit``.

    Other fields follow, each behind a semicolon: ``age=regression:years;scale=100;offset=1;output=2``. Fields are those of
    :class:`~mtl_deploy.runtime.bundle.tasks.Task` except ``size``, ``stride`` and ``shape``, which come from the network, and
    those that only the task's kind has. ``output`` of digits only is a position, and several are written with commas between,
    where the kind takes several; ``columns`` is the first and the one after the last, as ``7,9``; ``upsample`` and ``argmax`` are
    ``true`` or ``false``; ``valid_range`` is two numbers with a comma between them. Spaces around values are ignored. A label with
    a semicolon needs a task file.

    Raises:
        TaskError: the text has another form, a field is unknown, given twice or malformed, or the task itself is.
    """
    head, *parts = text.split(";")
    name, equals, rest = head.partition("=")
    kind, colon, details = rest.partition(":")
    if not equals or not kind.strip():
        raise TaskError(
            f"task {text!r}: write NAME=KIND, NAME=KIND:label,label or NAME=KIND;field=value (kinds: {', '.join(KINDS)})"
        )
    given: dict[str, Any] = {"name": name.strip(), "kind": kind.strip()}
    where = f"task {text!r}"
    of = task_kind(given["kind"]) if given["kind"] in KINDS else None
    readers = {name: (read, _FORMS.get(name, "")) for name, read in _READERS.items()}
    readers |= {} if of is None else option_readers(of)
    if colon:
        field = "labels" if of is None else of.text_field
        given[field] = readers[field][0](details.strip())
    for part in parts:
        field, equals, value = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if field not in readers or not equals:
            raise TaskError(
                f"{where}: {part.strip()!r} is no field=value with one of these fields: {', '.join(readers)}"
            )
        if field in given:
            raise TaskError(f"{where}: {field} is given twice")
        try:
            given[field] = readers[field][0](value)
        except ValueError:
            raise TaskError(f"{where}: {field} cannot be {value!r}; {readers[field][1]}") from None
    return Task.from_dict(given, where=where)


def _labels(text: str) -> list[str]:
    return [label.strip() for label in text.split(",")]


def _key(text: str) -> str | int | list[str | int]:
    keys: list[str | int] = [int(key) if key.isdecimal() else key for key in map(str.strip, text.split(","))]
    return keys if len(keys) > 1 else keys[0]


def _columns(text: str) -> list[int]:
    first, stop = (int(part) for part in text.split(","))
    return [first, stop]


def _numbers(text: str) -> list[float]:
    low, high = (float(part) for part in text.split(","))
    return [low, high]


_READERS: Mapping[str, Callable[[str], Any]] = {
    "labels": _labels,
    "unit": str,
    "activation": str,
    "threshold": float,
    "scale": float,
    "offset": float,
    "output": _key,
    "columns": _columns,
    "valid_range": _numbers,
    "upsample": truth,
    "argmax": truth,
}
_FORMS = {
    "columns": "write the first column and the one after the last, such as 7,9 for columns 7 and 8",
    "threshold": "write a number between 0 and 1",
    "scale": "write a number",
    "offset": "write a number",
    "valid_range": "write the least and the greatest depth, such as 0.5,10",
    "upsample": "write true or false",
    "argmax": "write true or false",
}
