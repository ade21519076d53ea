"""Arrays resized by Pillow, which releases the GIL, or by numpy where it is not installed; and colours made gray."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Interpolation

from . import resize as without_pillow

Pixels = npt.NDArray[np.uint8]

_MODES = {1: "L", 3: "RGB", 4: "RGBX"}  # no RGBA: Pillow weights the colours of that by their alpha
_CHOOSES = 13  # Pillow's release that resizes along the height first where that saves work
LUMA, HALF = (19595, 38470, 7471), 1 << 15  # over 2**16; Pillow's src/libImaging/Convert.c, L24


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


def rows_first(size: tuple[int, int], target: tuple[int, int]) -> bool:
    """Return whether :func:`resize_array` resizes along the height first: by the installed Pillow, which did not before release 13.

    Args:
        size: height and width.
        target: likewise, after resizing.
    """
    pillow = _pillow()
    newer = pillow is None or int(pillow.__version__.partition(".")[0]) >= _CHOOSES
    return newer and without_pillow.rows_first(size, target)


def luma(image: Pixels, colours: tuple[int, ...]) -> Pixels:
    """Return the gray ``(..., H, W, 1)`` of colours ``(..., H, W, 3 or 4) uint8``: Pillow's ``L``, the luma of ITU-R 601.

    Args:
        image: with an alpha behind the colours or without.
        colours: which channels are red, green and blue.
    """
    pillow = _pillow()
    if pillow is not None and image.ndim == 3:
        raw = "RGB" if colours == (0, 1, 2) else "BGR"
        size = image.shape[1], image.shape[0]
        picture = pillow.frombuffer("RGB", size, np.ascontiguousarray(image[..., :3]), "raw", raw, 0, 1)
        gray: Pixels = np.asarray(picture.convert("L"))
        return gray[..., None]
    sums = np.full(image.shape[:-1], HALF, np.uint32)
    for channel, weight in zip(colours, LUMA, strict=True):
        sums += np.multiply(image[..., channel], weight, dtype=np.uint32)
    return (sums >> 16).astype(np.uint8)[..., None]


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
