"""Numbers with what they count, in the singular or the plural."""

from __future__ import annotations


def noun(number: int, one: str, many: str | None = None) -> str:
    """Return what a number counts.

    Args:
        number: how many.
        one: the word for one.
        many: for several; None: the word with an s.
    """
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number and what it counts, such as ``1 image`` or ``3 boxes``; see :func:`noun`."""
    return f"{number} {noun(number, one, many)}"
