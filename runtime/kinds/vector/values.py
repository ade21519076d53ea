"""What a prediction of a vector task holds: numbers with names and units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .fields import points_of


@dataclass(frozen=True, eq=False)
class Values:
    """Named values.

    ``values["left_eye"]`` is a point ``(x, y)``, ``values["left_eye.x"]`` a number; ``numpy.asarray(values)`` is ``numbers``.

    Attributes:
        numbers: ``(k,) float32``.
        names: of the values; ``0``, ``1`` and so on where the task gives none.
        units: of the values; None where one has none.
    """

    numbers: npt.NDArray[np.float32]
    names: tuple[str, ...]
    units: tuple[str | None, ...]

    @property
    def points(self) -> dict[str, tuple[float, float]]:
        """By name, the points among the values: those called ``NAME.x`` and ``NAME.y``."""
        held = points_of(self.names)
        return {name: (float(self.numbers[x]), float(self.numbers[y])) for name, (x, y) in held.items()}

    @property
    def unit(self) -> str | None:
        """The unit of all values; None where they have none, or several."""
        found = set(self.units)
        return self.units[0] if len(found) == 1 else None

    def to_dict(self) -> dict[str, float]:
        """Return the values by name."""
        return {name: float(number) for name, number in zip(self.names, self.numbers, strict=True)}

    def __getitem__(self, name: str) -> float | tuple[float, float]:
        """Return a value, or a point.

        Raises:
            KeyError: there is none of this name.
        """
        if name in self.names:
            return float(self.numbers[self.names.index(name)])
        return self.points[name]

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.numbers)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the numbers, for numpy."""
        found = np.asarray(self.numbers, dtype)
        return found.copy() if copy else found

    def __eq__(self, other: object) -> bool:
        """Whether names, units and all numbers are the same; NaN equals nothing."""
        if not isinstance(other, Values):
            return NotImplemented
        same = (self.names, self.units) == (other.names, other.units)
        return same and bool(np.array_equal(self.numbers, other.numbers))

    __hash__ = None  # type: ignore[assignment]
