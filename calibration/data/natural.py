"""Generated pictures with the statistics of photographs, for when the user has none.

Networks are made for photographs. Noise, stripes and flat colours drive many of them far outside the range that they were trained
in, so such pictures say little about how a network does in use. Photographs share a few statistics, which these pictures have:

- a power spectrum that falls as the square of the frequency (Field, "Relations between the statistics of natural images and the
  response properties of cortical cells", 1987);
- edges of objects of all sizes that occlude one another: the dead leaves model with radii of density ``r ** -3`` (Lee, Mumford and
  Huang, "Occlusion models for natural images", 2001). Pictures of both kinds are close enough to photographs to train networks on
  (Baradad et al., "Learning to see by looking at noise", 2021, https://arxiv.org/abs/2106.05963);
- colours that vary together: ImageNet's mean and standard deviation, with the principal components of its pixels (Krizhevsky et
  al., "ImageNet classification with deep convolutional neural networks", 2012, section 4.1; the values are those of
  https://github.com/facebookarchive/fb.resnet.torch).

They do not show what activations a trained network has on faces or streets: never calibrate on them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import IMAGENET_MEAN, IMAGENET_STD

Plane = npt.NDArray[np.float64]

_LEAVES = 160
_RADII = (0.02, 0.6)  # of the shorter side
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow's L
_TEXTURE = 0.45  # standard deviation within a leaf, as a share of that of all colours
_BRIGHTNESS, _CONTRAST = 0.35, 0.2  # how much pictures differ, as a share of the standard deviation of all pixels
_MOST = 1.5  # standard deviations: cameras control exposure, so pictures differ by no more


def natural_images(count: int, height: int, width: int, *, seed: int, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Draw pictures with the statistics of photographs.

    Args:
        count: number of images. The first ones do not depend on the count.
        height: pixels.
        width: pixels.
        seed: the same seed gives the same images.
        channels: of an image. One is the luma of a colour picture. More than three are further pictures with the same shapes: each
            three a colour picture, a single one left over the luma of one, two left over its red and green.

    Returns:
        ``(count, height, width, channels) uint8``, RGB where there are three.
    """
    groups = -(-channels // 3)
    colours = np.kron(np.eye(groups), _colours())
    mean = np.tile(IMAGENET_MEAN, groups)
    images = np.empty((count, height, width, channels), np.uint8)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        picture = _smoothed(_leaves(rng, height, width, 3 * groups)) @ colours.T
        contrast = np.exp(_CONTRAST * np.clip(rng.standard_normal(), -_MOST, _MOST))
        brightness = _BRIGHTNESS * (colours @ np.clip(rng.standard_normal(3 * groups), -_MOST, _MOST))
        images[i] = np.rint(255 * in_channels(np.clip(mean + brightness + contrast * picture, 0, 1), channels))
    return images


def in_channels(picture: Plane, channels: int) -> Plane:
    """Return colour pictures ``(H, W, 3 * groups)`` as ``(H, W, channels)``; see :func:`natural_images`."""
    if channels % 3 != 1:
        return picture[..., :channels]
    return np.concatenate(
        [picture[..., : channels - 1], picture[..., channels - 1 : channels + 2] @ _LUMA[:, None]], axis=-1
    )


def _colours() -> Plane:
    """Return the matrix that turns three independent standard normals into a colour's distance from ImageNet's mean."""
    covariance = (_EIGENVECTORS * _EIGENVALUES) @ _EIGENVECTORS.T
    scale = np.array(IMAGENET_STD) / np.sqrt(np.diag(covariance))
    mixed: Plane = scale[:, None] * _EIGENVECTORS * np.sqrt(_EIGENVALUES)
    return mixed


def _leaves(rng: np.random.Generator, height: int, width: int, channels: int) -> Plane:
    """Lay textured shapes over one another; ``(height, width, channels)``, in independent components of unit variance."""
    picture = _fractal(rng, height, width, channels)
    texture = _fractal(rng, height, width, channels)
    short = min(height, width)
    low, high = (1 / (radius * short) ** 2 for radius in _RADII)
    for _ in range(_LEAVES):
        radius = (low + rng.random() * (high - low)) ** -0.5  # of density r ** -3 between the two
        place = rng.uniform(0, 1, 2) * (height, width)
        box, inside = _leaf(rng, place, radius, (height, width))
        colour = np.sqrt(1 - _TEXTURE**2) * rng.standard_normal(channels)
        shift = rng.integers(0, (height, width))
        rows, columns = (
            np.arange(side.start, side.stop) - by for side, by in zip(box, shift, strict=True)
        )  # negative ones come from the other side
        own = texture[rows[:, None], columns][inside]
        picture[box][inside] = colour + _TEXTURE * own
    return picture


def _leaf(
    rng: np.random.Generator, place: Plane, radius: float, size: tuple[int, int]
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """Return the box of a rotated ellipse or rectangle, and which of its pixels are inside."""
    reach = int(np.ceil(1.5 * radius))
    starts = [max(int(at) - reach, 0) for at in place]
    stops = [min(int(at) + reach + 1, side) for at, side in zip(place, size, strict=True)]
    y, x = np.mgrid[starts[0] : stops[0], starts[1] : stops[1]]
    angle, slim = rng.uniform(0, np.pi), rng.uniform(0.4, 1)
    along = (np.cos(angle) * (x - place[1]) + np.sin(angle) * (y - place[0])) / radius
    across = (np.cos(angle) * (y - place[0]) - np.sin(angle) * (x - place[1])) / (slim * radius)
    inside = along**2 + across**2 < 1 if rng.random() < 0.5 else np.maximum(abs(along), abs(across)) < 1
    return (slice(starts[0], stops[0]), slice(starts[1], stops[1])), inside


def _fractal(rng: np.random.Generator, height: int, width: int, channels: int) -> Plane:
    """Draw noise whose amplitude falls as one over the frequency; ``(height, width, channels)``, with mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((height, width, channels)), axes=(0, 1))
    found = np.fft.irfft2(white / frequency[..., None], s=(height, width), axes=(0, 1))
    deviation = found.std(axis=(0, 1))
    scaled: Plane = found / np.where(deviation > 0, deviation, 1)
    return scaled


def _smoothed(picture: Plane) -> Plane:
    """Blur by half a pixel, as a lens does: the edges of the shapes are jagged."""
    for axis in (0, 1):
        padded = np.concatenate([picture.take([0], axis), picture, picture.take([-1], axis)], axis)
        length = picture.shape[axis]
        before, after = padded.take(range(length), axis), padded.take(range(2, length + 2), axis)
        picture = (before + 2 * picture + after) / 4
    return picture
