"""One ray per pixel: the image of a scene, and the exact class, depth and normal of each pixel.

Camera coordinates: x right, y down, z forward along the optical axis. Rays have z = 1, so a hit's t is its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from shapes import Shape

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        position: ``(3,)``, metres, in the world.
        rotation: ``(3, 3)``: the camera's axes (right, down, forward) as rows, in the world.
        height: pixels.
        width: pixels.
        focal: pixels; the optical axis goes through the image's centre.
    """

    position: Array
    rotation: Array
    height: int
    width: int
    focal: float

    def rays(self) -> Array:
        """Return ``(height, width, 3)``: rays through the pixels' centres, in camera coordinates, with z = 1."""
        x = (np.arange(self.width) + 0.5 - self.width / 2) / self.focal
        y = (np.arange(self.height) + 0.5 - self.height / 2) / self.focal
        columns, rows = np.meshgrid(x, y)
        return np.stack([columns, rows, np.ones_like(columns)], axis=-1)


@dataclass(frozen=True)
class Scene:
    """What is rendered.

    Attributes:
        shapes: surfaces; rays from inside the room always hit one.
        camera: the camera.
        light: ``(3,)``, metres: position of a lamp.
        ambient: ambient light, from 0 to 1.
        shadows: whether shapes cast shadows on one another.
        noise: standard deviation of the sensor's noise, of 255 levels.
    """

    shapes: Sequence[Shape]
    camera: Camera
    light: Array
    ambient: float = 0.4
    shadows: bool = True
    noise: float = 2.0


@dataclass(frozen=True)
class Frame:
    """One image with its labels.

    Attributes:
        image: ``(H, W, 3) uint8``, RGB.
        segmentation: ``(H, W) uint8``, index in CLASSES.
        depth: ``(H, W) float32``, metres along the optical axis (not along the ray).
        normals: ``(H, W, 3) float32``, unit, in camera coordinates, towards the camera.
        nearest: ``(H, W) uint8``, which of the scene's shapes is seen: its index in ``Scene.shapes``.
    """

    image: npt.NDArray[np.uint8]
    segmentation: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    nearest: npt.NDArray[np.uint8]


def render(scene: Scene, rng: np.random.Generator) -> Frame:
    """Render a scene; ``rng`` draws the sensor's noise."""
    camera = scene.camera
    size = camera.height, camera.width
    directions = camera.rays().reshape(-1, 3) @ camera.rotation
    hits = np.stack([shape.hits(camera.position, directions) for shape in scene.shapes])
    nearest = hits.argmin(axis=0)
    depth = hits[nearest, np.arange(len(nearest))]
    points = camera.position + depth[:, None] * directions
    normals, colours = np.empty_like(points), np.empty_like(points)
    kinds = np.empty(len(points), np.uint8)
    for i in np.unique(nearest):
        seen, shape = nearest == i, scene.shapes[i]
        normals[seen] = shape.normals(points[seen])
        colours[seen] = shape.texture.colour(points[seen])
        kinds[seen] = shape.kind
    light = _light(scene, points, normals)
    levels = 255 * np.clip(colours * light[:, None], 0, 1) ** (1 / 2.2)
    levels += rng.normal(0, scene.noise, levels.shape)
    return Frame(
        image=np.clip(np.rint(levels), 0, 255).astype(np.uint8).reshape(*size, 3),
        segmentation=kinds.reshape(size),
        depth=depth.astype(np.float32).reshape(size),
        normals=(normals @ camera.rotation.T).astype(np.float32).reshape(*size, 3),
        nearest=nearest.astype(np.uint8).reshape(size),
    )


def _light(scene: Scene, points: Array, normals: Array) -> Array:
    """Return ``(N,)``: ambient light and, where the lamp is visible, the Lambertian share of its light."""
    towards = scene.light - points
    distance = np.linalg.norm(towards, axis=1)
    lambert = np.clip(np.einsum("ij,ij->i", towards, normals) / distance, 0, None)
    if scene.shadows:
        start = points + 1e-3 * normals
        for shape in scene.shapes:
            lambert = np.where(shape.hits(start, towards) < 1, 0, lambert)
    return scene.ambient + (1 - scene.ambient) * lambert / (0.6 + 0.08 * distance**2)
