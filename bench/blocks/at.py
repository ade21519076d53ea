"""A view of a result in which every value knows where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class At:
    """A value of a result, with its JSON pointer (RFC 6901). What is missing reads as None, so that old results render too.

    Args:
        value: the value.
        path: its pointer.
    """

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self.path = path

    def __getitem__(self, key: str | int) -> At:
        token = str(key).replace("~", "~0").replace("/", "~1")
        try:
            found = self.value[key]
        except (KeyError, IndexError, TypeError):
            found = None
        return At(found, f"{self.path}/{token}")

    def __bool__(self) -> bool:
        return self.value is not None and self.value not in ({}, [], "")

    def __iter__(self) -> Iterator[At]:
        return (self[i] for i in range(len(self.value or ())))

    def items(self) -> list[tuple[str, At]]:
        """Return a mapping's keys and values, in its order; none where it is missing."""
        return [(key, self[key]) for key in self.value] if isinstance(self.value, Mapping) else []

    def values(self) -> list[At]:
        """Return a mapping's values, in its order."""
        return [at for _, at in self.items()]

    def down(self, keys: Sequence[str]) -> At:
        """Return what several keys lead to, one after the other."""
        found = self
        for key in keys:
            found = found[key]
        return found

    def text(self, default: str = "") -> str:
        """Return the value as text."""
        return default if self.value is None else str(self.value)

    def number(self) -> float:
        """Return the value as a number; NaN where it is none."""
        value = self.value
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan

    def numbers(self) -> tuple[float, float, float]:
        """Return an interval's value and ends; NaN where it is missing."""
        return self["value"].number(), self["low"].number(), self["high"].number()
