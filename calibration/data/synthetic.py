"""Generated test images, for when the user has none.

They vary in what a network reacts to (colour, gradients, edges, texture, shapes), so that different networks give different
outputs. They do not show how large activations become on real images: never calibrate on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .natural import in_channels

Plane = npt.NDArray[np.float64]
Pattern = Callable[[np.random.Generator, Plane, Plane], Plane]


def synthetic_images(count: int, height: int, width: int, *, seed: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Draw test images: in turn a gradient, stripes, a texture, shapes, a flat colour and noise.

    Args:
        count: number of images. The first ones do not depend on the count.
        height: pixels.
        width: pixels.
        seed: the same seed gives the same images.
        channels: of an image: one is the luma of a colour picture; more than three are further pictures of the same pattern.

    Returns:
        ``(count, height, width, channels) uint8``, RGB where there are three.
    """
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    images = np.empty((count, height, width, channels), np.uint8)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        pattern = _PATTERNS[i % len(_PATTERNS)]
        image = np.concatenate([pattern(rng, y[..., None], x[..., None]) for _ in range(-(-channels // 3))], axis=-1)
        images[i] = np.rint(255 * in_channels(np.clip(image, 0, 1), channels))
    return images


def _gradient(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    ramp = _across(rng, y, x)
    span = max(float(np.ptp(ramp)), 1e-9)
    return _mix(rng, (ramp - np.min(ramp)) / span)


def _stripes(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    return _mix(rng, (np.sin(2 * np.pi * rng.uniform(2, 16) * _across(rng, y, x)) > 0).astype(np.float64))


def _texture(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    """Sum waves in random directions, the finer the weaker."""
    image = np.full((*y.shape[:2], 3), 0.5)
    for frequency in (1, 2, 4, 8, 16, 32):
        direction, phase = rng.normal(size=(2, 3)), rng.uniform(0, 2 * np.pi, 3)
        image += 0.25 / frequency**0.5 * np.sin(2 * np.pi * frequency * (direction[0] * x + direction[1] * y) + phase)
    return image


def _shapes(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    image = _gradient(rng, y, x)
    for number in range(12):
        (top, left), (tall, wide), colour = rng.uniform(0, 1, 2), rng.uniform(0.04, 0.3, 2), rng.uniform(0, 1, 3)
        down, right = np.abs(y - top) / tall, np.abs(x - left) / wide
        inside = np.maximum(down, right) < 1 if number % 2 else down**2 + right**2 < 1
        image = np.where(inside, colour, image)
    return image


def _flat(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    return np.broadcast_to(rng.uniform(0, 1, 3), np.broadcast_shapes(y.shape, x.shape, (1, 1, 3)))


def _noise(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    return rng.uniform(0, 1, np.broadcast_shapes(y.shape, x.shape, (1, 1, 3)))


def _across(rng: np.random.Generator, y: Plane, x: Plane) -> Plane:
    """Return the coordinate along a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(np.cos(angle) * x + np.sin(angle) * y)


def _mix(rng: np.random.Generator, share: Plane) -> Plane:
    first, second = rng.uniform(0, 1, (2, 3))
    return np.asarray(first + share * (second - first))


_PATTERNS: tuple[Pattern, ...] = (_gradient, _stripes, _texture, _shapes, _flat, _noise)
