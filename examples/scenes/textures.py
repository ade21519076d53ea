"""Random solid textures: the colour of a point in space, so that surfaces need no texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

PATTERNS = ("plain", "checker", "stripes", "noise")
LATTICE = 16  # side of the noise's periodic lattice of random values


@dataclass(frozen=True)
class Texture:
    """Two colours and how they alternate.

    Attributes:
        pattern: one of PATTERNS.
        colours: ``(2, 3)``, RGB from 0 to 1.
        frequency: cells, periods or lattice points per metre.
        direction: ``(3,)``, unit, across the stripes.
        offset: ``(3,)``, metres, so that no edge of a pattern lies in a surface.
        lattice: ``(LATTICE, LATTICE, LATTICE)``, the noise's values from 0 to 1.
    """

    pattern: str
    colours: Array
    frequency: float
    direction: Array
    offset: Array
    lattice: Array

    def colour(self, points: Array) -> Array:
        """Return the ``(N, 3)`` colours at ``(N, 3)`` points in metres."""
        mix = getattr(self, f"_{self.pattern}")((points + self.offset) * self.frequency)[:, None]
        return self.colours[0] * (1 - mix) + self.colours[1] * mix

    def _plain(self, points: Array) -> Array:
        return np.zeros(len(points))

    def _checker(self, points: Array) -> Array:
        return np.floor(points).sum(axis=1) % 2

    def _stripes(self, points: Array) -> Array:
        return np.clip(0.5 + 2 * np.sin(2 * np.pi * (points @ self.direction)), 0, 1)

    def _noise(self, points: Array) -> Array:
        fine = self._value_noise(2.03 * points)
        return np.clip(0.5 + 1.6 * (0.65 * self._value_noise(points) + 0.35 * fine - 0.5), 0, 1)

    def _value_noise(self, points: Array) -> Array:
        """Interpolate the lattice trilinearly, with weights smoothed as ``3 t^2 - 2 t^3``."""
        low = np.floor(points)
        weight = points - low
        weight = weight * weight * (3 - 2 * weight)
        x, y, z = (low.astype(np.int64) % LATTICE).T
        x1, y1, z1 = (x + 1) % LATTICE, (y + 1) % LATTICE, (z + 1) % LATTICE
        a, b, c = weight.T
        values = self.lattice
        near = _mix(_mix(values[x, y, z], values[x1, y, z], a), _mix(values[x, y1, z], values[x1, y1, z], a), b)
        far = _mix(_mix(values[x, y, z1], values[x1, y, z1], a), _mix(values[x, y1, z1], values[x1, y1, z1], a), b)
        return _mix(near, far, c)


def random_texture(rng: np.random.Generator, strong: int | None = None) -> Texture:
    """Draw a texture: any pattern, in pale colours or in colours with ``strong`` (0: red, 1: green, 2: blue) as largest channel."""
    if strong is None:
        base = rng.uniform(0.6, 0.95) + rng.uniform(-0.05, 0.05, 3)
        other = base - rng.uniform(0.12, 0.25)
    else:
        base = rng.uniform(0.0, 0.55, 3)
        base[strong] = rng.uniform(0.7, 1.0)
        other = base * rng.uniform(0.4, 0.75)
    direction = rng.normal(size=3)
    return Texture(
        pattern=str(rng.choice(PATTERNS)),
        colours=np.stack([base, other]),
        frequency=float(rng.uniform(1.0, 4.0)),
        direction=direction / np.linalg.norm(direction),
        offset=rng.uniform(100, 200, 3),
        lattice=rng.random((LATTICE, LATTICE, LATTICE)),
    )


def _mix(low: Array, high: Array, weight: Array) -> Array:
    return low + (high - low) * weight
