"""Random scenes as a data set: which frames have which labels, and their files.

Not every frame of the training set has every label, as in real data: see :func:`annotations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rendering import Camera, Scene, render
from shapes import CLASSES, Box, Cylinder, Shape, Sphere, room
from textures import random_texture

TASKS = ("segmentation", "depth", "normals")
UNKNOWN = 255  # for a pixel's class; NaN for depth and normals
FIELD_OF_VIEW = 70.0  # degrees, horizontal; the same for all frames, so that depth in metres can be told from one image
SHARES = (0.7, 0.25, 0.05)  # of the training frames: segmentation only, depth and normals only, all three
DEPTH_RANGE = (0.3, 12.0)  # metres; the largest room's diagonal is shorter
TRIES = 20  # positions to try for an object before it is left out


@dataclass(frozen=True)
class Frames:
    """Images with their labels.

    Attributes:
        images: ``(N, H, W, 3) uint8``, RGB.
        segmentation: ``(N, H, W) uint8``, index in CLASSES; 255: unknown.
        depth: ``(N, H, W) float32``, metres along the optical axis; NaN: unknown.
        normals: ``(N, H, W, 3) float32``, unit, camera coordinates (x right, y down, z forward); NaN: unknown.
    """

    images: npt.NDArray[np.uint8]
    segmentation: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: slice | npt.NDArray[np.int64]) -> Frames:
        return Frames(*(values[chosen] for values in vars(self).values()))


def generate(count: int, height: int = 96, width: int = 128, *, seed: int | Sequence[int] = 0) -> Frames:
    """Render random scenes, with all labels; the same seed gives the same frames."""
    rendered = []
    for i in range(count):
        rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), i])
        rendered.append(render(random_scene(rng, height, width), rng))
    return Frames(
        np.stack([frame.image for frame in rendered]),
        np.stack([frame.segmentation for frame in rendered]),
        np.stack([frame.depth for frame in rendered]),
        np.stack([frame.normals for frame in rendered]),
    )


def annotations(count: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Return ``(count, 3) bool``: which frames have which of TASKS, in the SHARES above."""
    kinds = np.array([[True, False, False], [False, True, True], [True, True, True]])
    bounds = np.rint(np.cumsum(SHARES) * count).astype(int)
    found = kinds[np.searchsorted(bounds, np.arange(count), side="right")]
    return np.random.default_rng(seed).permutation(found)


def hide(frames: Frames, known: npt.NDArray[np.bool_]) -> Frames:
    """Return the frames with labels that are not annotated replaced by 255 and NaN."""
    segmentation, depth, normals = (known[:, i] for i in range(3))
    return replace(
        frames,
        segmentation=np.where(segmentation[:, None, None], frames.segmentation, np.uint8(UNKNOWN)),
        depth=np.where(depth[:, None, None], frames.depth, np.float32(np.nan)),
        normals=np.where(normals[:, None, None, None], frames.normals, np.float32(np.nan)),
    )


def random_scene(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Draw a room with 4 to 6 objects in it, a camera at its edge that looks inward, and a lamp under the ceiling.

    The room's surfaces are pale, and each kind of object has its own colours; the camera's height hardly changes, as on a robot's
    mast, so that the distance to the floor can be told from an image. A few hundred training steps are enough for such scenes.
    """
    half = rng.uniform(1.9, 3.0, 2)
    ceiling = rng.uniform(2.4, 2.8)
    shapes: list[Shape] = [*room(half, ceiling, [random_texture(rng) for _ in range(4)])]
    corner = rng.uniform(0.8, 0.92, 2) * half * rng.choice([-1, 1], 2)
    position = np.array([corner[0], rng.uniform(1.35, 1.65), corner[1]])
    aim = rng.uniform(-0.3, 0.3, 2) * half
    target = np.array([aim[0], rng.uniform(0.5, 1.0), aim[1]])
    rotation = look_at(target - position, np.radians(rng.uniform(-5, 5)))
    shapes += _things(rng, half, position, rotation[2])
    camera = Camera(position, rotation, height, width, focal=width / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2)))
    lamp = rng.uniform(-0.6, 0.6, 2) * half
    light = np.array([lamp[0], ceiling - 0.2, lamp[1]])
    return Scene(shapes, camera, light, ambient=float(rng.uniform(0.3, 0.5)))


def look_at(forward: npt.NDArray[np.float64], roll: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the rotation of a camera that looks along ``forward`` with a level x axis, then rolled by ``roll`` radians."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward])


def _things(
    rng: np.random.Generator,
    half: npt.NDArray[np.float64],
    camera: npt.NDArray[np.float64],
    forward: npt.NDArray[np.float64],
) -> list[Shape]:
    """Draw one or two boxes, spheres and cylinders each, in the camera's view and not overlapping, if there is room."""
    heading = np.arctan2(forward[0], forward[2])
    things: list[Shape] = []
    taken: list[npt.NDArray[np.float64]] = []  # x, z, radius of the footprint
    for kind in rng.permutation(np.arange(rng.integers(4, 7)) % 3):
        for _ in range(TRIES):
            away, angle = rng.uniform(1.5, 4.0), heading + np.radians(rng.uniform(-32, 32))
            place = camera[[0, 2]] + away * np.array([np.sin(angle), np.cos(angle)])
            shape, radius = _thing(rng, int(kind), place)
            inside = (np.abs(place) + radius < half).all()
            if inside and all(np.hypot(*(place - other[:2])) > radius + other[2] for other in taken):
                things.append(shape)
                taken.append(np.array([*place, radius]))
                break
    return things


def _thing(rng: np.random.Generator, kind: int, place: npt.NDArray[np.float64]) -> tuple[Shape, float]:
    """Draw a reddish box, greenish sphere or bluish cylinder at ``place``; return it and its radius on the floor in metres."""
    x, z = place
    texture = random_texture(rng, strong=kind)
    if kind == 0:
        sides = rng.uniform([0.2, 0.22, 0.2], [0.4, 0.55, 0.4])
        return Box(np.array([x, sides[1], z]), sides, rng.uniform(0, np.pi), texture), float(np.hypot(*sides[::2]))
    if kind == 1:
        radius = rng.uniform(0.33, 0.58)
        return Sphere(np.array([x, radius + max(0, rng.uniform(-0.6, 0.6)), z]), radius, texture), radius
    radius = rng.uniform(0.22, 0.42)
    return Cylinder(np.array([x, 0.0, z]), radius, rng.uniform(0.6, 1.5), texture), radius


def write(frames: Frames, folder: Path) -> None:
    """Write ``images/NAME.png`` and ``labels/<task>/NAME.png`` or ``.npy``; a map without any label gets no file."""
    for path in (folder / "images", *(folder / "labels" / task for task in TASKS)):
        path.mkdir(parents=True, exist_ok=True)
    for i in range(len(frames)):
        name = f"{i:04d}"
        Image.fromarray(frames.images[i]).save(folder / "images" / f"{name}.png")
        if (frames.segmentation[i] != UNKNOWN).any():
            Image.fromarray(frames.segmentation[i]).save(folder / "labels" / "segmentation" / f"{name}.png")
        for task in ("depth", "normals"):
            values = getattr(frames, task)[i]
            if not np.isnan(values).all():
                np.save(folder / "labels" / task / f"{name}.npy", values)


def read(folder: Path) -> Frames:
    """Read back what :func:`write` wrote."""
    names = sorted(path.stem for path in (folder / "images").glob("*.png"))
    images = np.stack([np.asarray(Image.open(folder / "images" / f"{name}.png")) for name in names])
    segmentation = np.full(images.shape[:3], UNKNOWN, np.uint8)
    depth = np.full(images.shape[:3], np.nan, np.float32)
    normals = np.full(images.shape, np.nan, np.float32)
    labels = folder / "labels"
    for i, name in enumerate(names):
        if (path := labels / "segmentation" / f"{name}.png").exists():
            segmentation[i] = np.asarray(Image.open(path))
        for task, values in (("depth", depth), ("normals", normals)):
            if (path := labels / task / f"{name}.npy").exists():
                values[i] = np.load(path)
    return Frames(images, segmentation, depth, normals)


def save(frames: Frames, file: Path) -> None:
    """Write all arrays to one ``.npz``, named like the attributes, and ``classes``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, classes=np.array(CLASSES), **vars(frames))
