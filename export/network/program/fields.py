"""Checks of JSON values, composed of small ones. Each takes a value and its place, and returns the value rebuilt.

A check refuses what it does not know. No value gets through unseen; :func:`dropped` leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

Json = Any
Check = Callable[[Json, str], Json]

INT64 = 1 << 63
_MOST_ITEMS = 500_000  # of a list or a mapping
_INFINITE = {
    "Infinity": math.inf,
    "-Infinity": -math.inf,
    "NaN": math.nan,
}  # how torch writes numbers that JSON lacks


class RefusedError(ValueError):
    """Something that is not known to be harmless; the message says where it is and what it is."""


class MalformedError(ValueError):
    """Something that is missing, or has another type than torch writes."""


class UnusableError(ValueError):
    """Something harmless that cannot be exported; the message says what to do."""


def dropped(value: Json, where: str) -> Json:  # noqa: ARG001 - as all checks
    """Accept anything, and leave it out."""
    return None


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Return a check of an object with these fields. An unknown field is refused, unless it is empty."""
    known = {**required, **(optional or {})}

    def check(value: Json, where: str) -> Json:
        if not isinstance(value, dict):
            raise MalformedError(f"{where} is not an object")
        for field in value:
            if field not in known and value[field] not in (None, [], {}, "", False):
                raise RefusedError(f"{where}: field {field[:80]!r}")
        for field in required:
            if field not in value:
                raise MalformedError(f"{where}: {field} is missing")
        kept = ((field, part) for field, part in known.items() if field in value and part is not dropped)
        return {field: part(value[field], f"{where}.{field}") for field, part in kept}

    return check


def union(choices: Mapping[str, Check]) -> Check:
    """Return a check of an object with exactly one of these fields."""

    def check(value: Json, where: str) -> Json:
        if not isinstance(value, dict) or len(value) != 1:
            raise MalformedError(f"{where} does not have exactly one field")
        ((field, inner),) = value.items()
        if field not in choices:
            raise RefusedError(f"{where}: field {field[:80]!r}")
        return {field: choices[field](inner, f"{where}.{field}")}

    return check


def listed(item: Check, most: int = _MOST_ITEMS) -> Check:
    """Return a check of a list."""

    def check(value: Json, where: str) -> Json:
        if not isinstance(value, list):
            raise MalformedError(f"{where} is not a list")
        if len(value) > most:
            raise RefusedError(f"{where}: {len(value)} items, of {most} at most")
        return [item(part, f"{where}[{position}]") for position, part in enumerate(value)]

    return check


def mapped(key: Check, item: Check) -> Check:
    """Return a check of an object whose keys are names."""

    def check(value: Json, where: str) -> Json:
        if not isinstance(value, dict):
            raise MalformedError(f"{where} is not an object")
        if len(value) > _MOST_ITEMS:
            raise RefusedError(f"{where}: {len(value)} items, of {_MOST_ITEMS} at most")
        return {key(name, where): item(part, f"{where}.{name}") for name, part in value.items()}

    return check


def nullable(inner: Check) -> Check:
    """Return a check that lets null through."""

    def check(value: Json, where: str) -> Json:
        return None if value is None else inner(value, where)

    return check


def boolean(value: Json, where: str) -> Json:
    """Check a true or false."""
    if not isinstance(value, bool):
        raise MalformedError(f"{where} is not true or false")
    return value


def integer(value: Json, where: str) -> Json:
    """Check a 64-bit integer."""
    if not isinstance(value, int) or isinstance(value, bool) or not -INT64 <= value < INT64:
        raise MalformedError(f"{where} is not a 64-bit integer")
    return value


def count(value: Json, where: str) -> Json:
    """Check an integer of 0 or more."""
    if integer(value, where) < 0:
        raise MalformedError(f"{where} is negative")
    return value


def number(value: Json, where: str) -> Json:
    """Check a floating-point number, which may be infinite."""
    if isinstance(value, str) and value in _INFINITE:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MalformedError(f"{where} is not a number")
    if not math.isfinite(value):
        raise MalformedError(f"{where} is a number that JSON does not have")
    return value


def one_of(values: Collection[int]) -> Check:
    """Return a check of an integer with one of these values."""

    def check(value: Json, where: str) -> Json:
        if integer(value, where) not in values:
            raise RefusedError(f"{where}: {value}")
        return value

    return check


def text(accepted: Callable[[str], object]) -> Check:
    """Return a check of a string that a function, or a pattern's ``fullmatch``, accepts."""

    def check(value: Json, where: str) -> Json:
        if not isinstance(value, str):
            raise MalformedError(f"{where} is not a string")
        if not accepted(value):
            raise RefusedError(f"{where}: {value[:120]!r}")
        return value

    return check


def rewritten(clean: Callable[[str], str | None]) -> Check:
    """Return a check of a string that a function rewrites, or raises ValueError for."""

    def check(value: Json, where: str) -> Json:
        if not isinstance(value, str):
            raise MalformedError(f"{where} is not a string")
        try:
            return clean(value)
        except ValueError as error:
            raise RefusedError(f"{where}: {value[:120]!r}, {error}") from error

    return check
