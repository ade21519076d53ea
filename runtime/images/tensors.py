"""From pixels of the network's size to the tensors that a graph takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing

from .fit import ImagePlacement

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PreparedImages:
    """Images as the graph takes them.

    Attributes:
        batches: C-contiguous tensors, each with the positions of its images among those given. Just one, unless sizes are
            free and the images have several.
        placements: where each image lies in its tensor, in the order given.
        single: whether a single image was given, not a list or a batch.
    """

    batches: tuple[tuple[Array, tuple[int, ...]], ...]
    placements: tuple[ImagePlacement, ...]
    single: bool


def ready(tensor: Any, sides: tuple[int, ...], *, single: bool = False) -> PreparedImages:
    """Return a tensor that the graph takes as it is; its images have its own height and width."""
    height, width = sides
    placement = ImagePlacement((height, width), (height, width), (0, 0, height, width))
    count = int(tensor.shape[0])
    return PreparedImages(((tensor, tuple(range(count))),), (placement,) * count, single)


def whole_batch(pixels: Pixels, placements: Sequence[ImagePlacement], preprocessing: Preprocessing) -> PreparedImages:
    """Return images that lie in one array already, ``(N, height, width, C) uint8``."""
    tensor = tensor_of(pixels, preprocessing)
    return PreparedImages(((tensor, tuple(range(len(pixels)))),), tuple(placements), single=False)


def stacked(
    images: Sequence[tuple[Pixels, ImagePlacement]], preprocessing: Preprocessing, *, single: bool = False
) -> PreparedImages:
    """Make one batch per size of the images."""
    positions: dict[tuple[int, int], list[int]] = {}
    for position, (_, placement) in enumerate(images):
        positions.setdefault(placement.input, []).append(position)
    batches = []
    for found in positions.values():
        pixels = images[found[0]][0][None] if len(found) == 1 else np.stack([images[position][0] for position in found])
        batches.append((tensor_of(pixels, preprocessing), tuple(found)))
    return PreparedImages(tuple(batches), tuple(placement for _, placement in images), single)


def tensor_of(pixels: Pixels, preprocessing: Preprocessing) -> Array:
    """Return a batch ``(N, height, width, C) uint8`` as the graph takes it: as it is, or normalised and in planes."""
    if preprocessing.input == "uint8":
        return pixels
    scale = (1 / (255 * np.asarray(preprocessing.std, np.float64))).astype(np.float32)
    shift = (-np.asarray(preprocessing.mean, np.float64) / preprocessing.std).astype(np.float32)
    if preprocessing.order == "bgr":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray((pixels * scale + shift).transpose(0, 3, 1, 2), dtype=np.float32)
