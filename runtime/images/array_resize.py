"""Arrays resized by the fastest exact resizer at hand: Pillow, which releases the GIL, or numpy where it is not installed."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Interpolation

from . import resize as without_pillow

Pixels = npt.NDArray[np.uint8]

_MODES = {1: "L", 3: "RGB", 4: "RGBX"}  # no RGBA: Pillow weights the colours of that by their alpha


def resize_array(image: Pixels, height: int, width: int, interpolation: Interpolation) -> Pixels:
    """Resize ``(H, W, C) uint8`` to ``(height, width, C) uint8``, antialiased, each channel by itself.

    With Pillow the result is that of the installed release; without, see :func:`~mtl_deploy.runtime.images.resize.resize`. An image
    of that size is returned as it is where it is C-contiguous.
    """
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    pillow = _pillow()
    if pillow is None:
        return without_pillow.resize(image, height, width, interpolation)
    parts = [
        _resized(pillow, image[..., part], height, width, pillow.Resampling[interpolation.upper()])
        for part in _parts(image.shape[2])
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _parts(channels: int) -> list[slice]:
    """Cut channels into the numbers of them that Pillow has modes for."""
    parts = []
    start = 0
    while start < channels:
        count = next(count for count in sorted(_MODES, reverse=True) if count <= channels - start)
        parts.append(slice(start, start + count))
        start += count
    return parts


def _resized(pillow: ModuleType, image: Pixels, height: int, width: int, method: object) -> Pixels:
    high, wide, channels = image.shape
    mode = _MODES[channels]
    picture = pillow.frombuffer(mode, (wide, high), np.ascontiguousarray(image), "raw", mode, 0, 1)
    found: Pixels = np.asarray(picture.resize((width, height), method))
    return found.reshape(height, width, channels)


@lru_cache(maxsize=1)
def _pillow() -> ModuleType | None:
    try:
        from PIL import Image
    except ImportError:
        return None
    return Image
