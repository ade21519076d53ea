"""What a kind shows of a prediction, as data: marks on the image, or a panel beside it with its key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Legend:
    """Colours with what they mean: text, and its colour or None for a remark."""

    entries: tuple[tuple[str, Colour | None], ...]


@dataclass(frozen=True)
class Scale:
    """A bar with the colours of numbers from ``low`` to ``high``."""

    low: float
    high: float
    unit: str | None


@dataclass(frozen=True)
class Words:
    """Lines of text."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """A picture of its own: ``(H, W, 3) uint8`` RGB of the image's size, and what stands below it."""

    pixels: Pixels
    key: Legend | Scale | Words | None = None


@dataclass(frozen=True)
class Box:
    """A rectangle on the image, from its upper left to its lower right corner in the image's pixels, with a few words at it."""

    left: float
    top: float
    right: float
    bottom: float
    colour: Colour
    text: str = ""


@dataclass(frozen=True)
class Point:
    """A dot on the image, in its pixels, with a few words at it."""

    x: float
    y: float
    colour: Colour
    text: str = ""


@dataclass(frozen=True)
class Line:
    """A line on the image, in its pixels."""

    start: tuple[float, float]
    end: tuple[float, float]
    colour: Colour


@dataclass(frozen=True)
class Tint:
    """Pixels of the image that get a colour: ``(H, W) bool``."""

    mask: npt.NDArray[np.bool_]
    colour: Colour


Mark = Box | Point | Line | Tint
