"""Rendered rooms as a data set for detection: boxes of what is seen, the floor, and the conditions of the image.

The rooms and their objects are those of ``examples/scenes``, whose renderer says which shape each pixel shows. What a lamp, air and
a sensor do to an image is added to it: see :func:`expose`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SCENES = str(Path(__file__).resolve().parents[1] / "scenes")
if SCENES not in sys.path:
    sys.path.append(SCENES)

from frames import random_scene  # noqa: E402
from rendering import Frame, render  # noqa: E402
from shapes import CLASSES as SURFACES  # noqa: E402

CLASSES = ("box", "sphere", "cylinder")
CONDITIONS = ("dim", "warm", "haze", "grain")
SHARES = (0.35, 0.35, 0.3, 0.3)  # of the images under each condition; one does not depend on another
LEAST = 40  # pixels of an object that are seen; one of which less is seen has no box

GAMMA = 2.2
DIM = (0.12, 0.3)  # share of the light that is left
WARM = (1.0, 0.78, 0.5)  # light of an old lamp in linear red, green, blue
HAZE = (0.15, 0.35)  # share of an object's light that is lost per metre
HAZE_LEVEL = 0.55  # linear light of the haze itself, in a room that is not dim
GRAIN = (12.0, 20.0)  # standard deviation of the noise, of 255 levels


@dataclass(frozen=True)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: ``(K, 4) float64``: x1, y1, x2, y2 in pixels, around the pixels that are seen: x2 and y2 are behind the last ones.
        classes: ``(K,) int64``: index in CLASSES.
        areas: ``(K,) int64``: how many pixels of each are seen.
    """

    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class Rooms:
    """Images with their labels.

    Attributes:
        images: ``(N, H, W, 3) uint8``, RGB.
        objects: of each image.
        floor: ``(N, H, W) bool``: which pixels show the floor.
        conditions: ``(N, 4) bool``: which of CONDITIONS hold.
    """

    images: npt.NDArray[np.uint8]
    objects: tuple[Objects, ...]
    floor: npt.NDArray[np.bool_]
    conditions: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)


def generate(count: int, height: int = 128, width: int = 160, *, seed: int | Sequence[int] = 0) -> Rooms:
    """Render random rooms; the same seed gives the same ones."""
    images, objects, floor, conditions = [], [], [], []
    for i in range(count):
        rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), i])
        scene = random_scene(rng, height, width)
        frame = render(scene, rng)
        held = rng.random(len(CONDITIONS)) < SHARES
        images.append(expose(frame, held, rng))
        objects.append(seen(frame, [SURFACES[shape.kind] for shape in scene.shapes]))
        floor.append(frame.segmentation == SURFACES.index("floor"))
        conditions.append(held)
    return Rooms(np.stack(images), tuple(objects), np.stack(floor), np.stack(conditions))


def seen(frame: Frame, names: Sequence[str]) -> Objects:
    """Return the objects of which enough is seen, those in front and those behind alike; ``names``: of all shapes."""
    found = []
    for index, name in enumerate(names):
        if name in CLASSES:
            rows, columns = np.nonzero(frame.nearest == index)
            if len(rows) >= LEAST:
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                found.append((box, CLASSES.index(name), len(rows)))
    boxes = np.array([box for box, _, _ in found], np.float64).reshape(-1, 4)
    classes, areas = (np.array([each[part] for each in found], np.int64) for part in (1, 2))
    return Objects(boxes, classes, areas)


def expose(frame: Frame, held: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the frame's image under the conditions that hold, each as strong as ``rng`` draws it.

    ``dim``: little light is left. ``warm``: it is reddish. ``haze``: with the distance objects lose their light to that of the
    air, as in Koschmieder's law. ``grain``: the sensor's noise is strong.
    """
    dim, warm, haze, grain = held
    light = (frame.image / 255) ** GAMMA
    air = np.full(3, HAZE_LEVEL)
    lost, left = rng.uniform(*HAZE), rng.uniform(*DIM)
    noise = rng.normal(0, rng.uniform(*GRAIN), light.shape)
    if haze:
        through = np.exp(-lost * frame.depth)[..., None]
        light = light * through + air * (1 - through)
    if warm:
        light = light * WARM
    if dim:
        light = light * left
    levels = 255 * light ** (1 / GAMMA) + noise * grain
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
