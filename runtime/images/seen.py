"""What a network sees of a camera's frames: the reference path that a graph's own conversion and resizing must equal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing

from .camera import unpacked
from .layout import Layout, frame_of
from .loading import fitted
from .parallel import each

Pixels = npt.NDArray[np.uint8]


def seen_pixels(images: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Return what the network sees of a graph's images, in several threads.

    Args:
        images: ``(N, *preprocessing.image_shape) uint8``.
        preprocessing: the graph's.

    Returns:
        ``(N, height, width, C) uint8``, RGB where C is 3: frames with their colours converted, resized by Pillow, and placed. The
        images themselves where the graph takes no frames.
    """
    source = preprocessing.source
    if source is None:
        return images
    of = preprocessing.seen
    found = np.empty((len(images), *of.image_shape), np.uint8)

    def see(index: int) -> None:
        pixels: Pixels = images[index]
        layout: Layout = "rgb"
        if source.layout == "nv12" or source.layout == "yuyv":
            pixels = unpacked(pixels, source)
        else:
            layout = source.layout
        fitted(frame_of(pixels, of, layout), of, found[index])

    each(see, len(images))
    return found
