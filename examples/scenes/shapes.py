"""Surfaces that rays hit: the room, boxes, spheres and cylinders. Each gives the exact distance and normal.

World coordinates: x and z on the floor, y up, metres. A ray is ``origin + t * direction``; directions need not have unit length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from textures import Texture

Array = npt.NDArray[np.float64]

CLASSES = ("floor", "wall", "ceiling", "box", "sphere", "cylinder")
NEAR = 1e-4  # smallest t of a hit, so that a shadow ray does not hit the surface that it starts from


class Shape(Protocol):
    """A surface."""

    texture: Texture

    def hits(self, origin: Array, directions: Array) -> Array:
        """Return the ``(N,)`` first t > NEAR; infinity where a ray misses the surface.

        Args:
            origin: ``(3,)``, or ``(N, 3)`` with one per ray.
            directions: ``(N, 3)``.
        """
        ...

    def normals(self, points: Array) -> Array:
        """Return the ``(N, 3)`` outward unit normals (the room's point inward) at points on the surface."""
        ...


@dataclass(frozen=True)
class Plane:
    """An infinite plane, one side of the room: ``normal @ point = offset``. ``kind``: index in CLASSES."""

    normal: Array
    offset: float
    kind: int
    texture: Texture

    def hits(self, origin: Array, directions: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self.offset - origin @ self.normal) / (directions @ self.normal)
        return np.where(t > NEAR, t, np.inf)

    def normals(self, points: Array) -> Array:
        return np.broadcast_to(self.normal, points.shape)


@dataclass(frozen=True)
class Sphere:
    """A sphere."""

    centre: Array
    radius: float
    texture: Texture
    kind: int = CLASSES.index("sphere")

    def hits(self, origin: Array, directions: Array) -> Array:
        a = np.einsum("ij,ij->i", directions, directions)
        from_centre = origin - self.centre
        b = (directions * from_centre).sum(axis=1)
        c = (from_centre * from_centre).sum(axis=-1) - self.radius**2
        return _nearest_root(a, b, c)

    def normals(self, points: Array) -> Array:
        return (points - self.centre) / self.radius


@dataclass(frozen=True)
class Box:
    """An upright box, rotated by ``yaw`` radians about the vertical; ``half``: half its sides."""

    centre: Array
    half: Array
    yaw: float
    texture: Texture
    kind: int = CLASSES.index("box")

    @property
    def axes(self) -> Array:
        """``(3, 3)``: the box's own axes as rows."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])

    def hits(self, origin: Array, directions: Array) -> Array:
        start = (origin - self.centre) @ self.axes.T
        along = directions @ self.axes.T
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (-self.half - start) / along, (self.half - start) / along
        enter = np.minimum(one, other).max(axis=1)
        leave = np.maximum(one, other).min(axis=1)
        return np.where((enter <= leave) & (enter > NEAR), enter, np.inf)

    def normals(self, points: Array) -> Array:
        local = (points - self.centre) @ self.axes.T / self.half
        side = np.abs(local).argmax(axis=1)
        rows = np.arange(len(points))
        return self.axes[side] * np.sign(local[rows, side])[:, None]


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder that stands on the floor; ``centre``: of its base."""

    centre: Array
    radius: float
    height: float
    texture: Texture
    kind: int = CLASSES.index("cylinder")

    def hits(self, origin: Array, directions: Array) -> Array:
        start = origin - self.centre
        flat, flat_start = directions[:, [0, 2]], start[..., [0, 2]]
        a = (flat * flat).sum(axis=1)
        b = (flat * flat_start).sum(axis=1)
        side = _nearest_root(a, b, (flat_start * flat_start).sum(axis=-1) - self.radius**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            height = start[..., 1] + side * directions[:, 1]
            side = np.where((height >= 0) & (height <= self.height), side, np.inf)
            top = (self.height - start[..., 1]) / directions[:, 1]
            reached = flat_start + top[:, None] * flat
            inside = (reached * reached).sum(axis=1) <= self.radius**2
        return np.minimum(side, np.where(inside & (top > NEAR), top, np.inf))

    def normals(self, points: Array) -> Array:
        local = points - self.centre
        out = np.stack([local[:, 0], np.zeros(len(local)), local[:, 2]], axis=1) / self.radius
        on_top = np.abs(local[:, 1] - self.height) < 1e-9
        return np.where(on_top[:, None], np.array([0.0, 1.0, 0.0]), out / np.linalg.norm(out, axis=1, keepdims=True))


def room(half: Array, height: float, textures: list[Texture]) -> list[Plane]:
    """Return floor, ceiling and four walls of a room around the origin; ``half``: half its width and length."""
    floor, wall, ceiling = (CLASSES.index(name) for name in ("floor", "wall", "ceiling"))
    x, y, z = np.eye(3)
    return [
        Plane(y, 0.0, floor, textures[0]),
        Plane(-y, -height, ceiling, textures[1]),
        Plane(x, -half[0], wall, textures[2]),
        Plane(-x, -half[0], wall, textures[2]),
        Plane(z, -half[1], wall, textures[3]),
        Plane(-z, -half[1], wall, textures[3]),
    ]


def _nearest_root(a: Array, b: Array, c: Array) -> Array:
    """Solve ``a t^2 + 2 b t + c = 0`` for the smaller root; infinity where there is none beyond NEAR."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (-b - np.sqrt(b * b - a * c)) / a
    return np.where(t > NEAR, t, np.inf)
