"""Kinds of figures: in which unit and with how many digits each is written, on a page and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mtl_deploy.runtime.console.nouns import noun


def significant(value: float, digits: int = 3) -> str:
    """Write a number with some significant digits, without an exponent; digits before the point are never dropped."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        places -= 1  # 9.996 is 10.0
    return f"{value:,.{max(0, places)}f}" if abs(value) >= 10_000 else f"{value:.{max(0, places)}f}"


def counted(number: int, word: str, many: str | None = None) -> str:
    """Write a number with what is counted, in the singular or the plural.

    Args:
        number: how many.
        word: of one.
        many: of several; None: the word with an s.
    """
    return f"{number:,} {noun(number, word, many)}"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


class Show(NamedTuple):
    """How a kind of figure is written.

    Attributes:
        scale: the unit that people read, as a multiple of the result's.
        page: writes it on a page.
        terminal: a format for the terminal, where figures of a column have as many decimals; None: as on the page.
        exact_below: smaller figures have three significant digits in the terminal too, as so many decimals would hide them.
        unit: behind the figure.
    """

    scale: float
    page: Callable[[float], str]
    terminal: str | None = None
    unit: str = ""
    exact_below: float = 0


SHOWS = {
    "number": Show(1, significant),
    "plain": Show(1, _plain),
    "count": Show(1, lambda value: f"{value:,.0f}", ".0f"),
    "ratio": Show(1, lambda value: f"{value:.2f}" if abs(value) < 100 else significant(value), ".2f"),
    "percent": Show(100, lambda value: f"{value:.1f}", ".1f", "\u202f%"),
    "percentage": Show(100, lambda value: f"{value:.1f}", ".1f"),
    "busy": Show(100, lambda value: f"{value:.1f}", ".0f"),
    "points": Show(100, lambda value: f"{value:+.2f}"),
    "share": Show(100, lambda value: f"{value:.2f}"),
    "signed": Show(1, lambda value: ("+" if value >= 0 else "") + significant(value)),
    "error": Show(1, lambda value: f"{value:.2e}" if 0 < abs(value) < 1e-3 else significant(value)),
    "ms": Show(1, significant, ".2f", exact_below=1),
    "short ms": Show(1, significant, ".3f", exact_below=0.1),
    "long ms": Show(1, significant, ".0f", exact_below=100),
    "rate": Show(1, significant, ".1f"),
    "watts": Show(1, significant, ".1f"),
    "joules": Show(1, significant, ".3g"),
    "MB": Show(1e-6, significant, ".0f"),
    "file MB": Show(1e-6, significant, ".1f"),
    "GB": Show(1e-9, significant),
    "megabytes": Show(1e-6, significant, unit="\u202fMB"),
    "gigabytes": Show(1e-9, significant, unit="\u202fGB"),
    "M": Show(1e-6, significant, ".2f"),
    "G": Show(1e-9, significant, ".3f"),
}
"""By name: the kinds of figures. A page's element names its kind in ``data-show``."""


def shown(value: Any, show: str = "number") -> str:
    """Write a figure as people read it on a page."""
    kind = SHOWS[show]
    return kind.page(value * kind.scale if kind.scale != 1 else value) + kind.unit


def printed(value: Any, show: str = "number") -> str:
    """Write a figure as people read it in a terminal."""
    kind = SHOWS[show]
    scaled = value * kind.scale if kind.scale != 1 else value
    fixed = kind.terminal is not None and not 0 < abs(scaled) < kind.exact_below
    text = format(scaled, kind.terminal or "") if fixed else kind.page(scaled)
    return text + kind.unit.replace("\u202f", " ")
