"""Whether images have the shape that their boxes were drawn on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.files import opened_image

_ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4: values from 5 on turn the image by a quarter
_APART = 0.02
"""How much the ratio of the sides may differ: a data set may have been shrunk, with sides rounded, after its boxes were drawn."""


def misshapen(images: Sequence[Path], entries: Sequence[Mapping[str, Any] | None]) -> dict[int, str]:
    """Return what is wrong, by position, with images whose sides have another ratio than their entries in COCO's file say.

    Boxes are brought to the network's input by the width and height of the file. They fit an image that was shrunk since, but not
    one that was turned or cut. Only headers are read; images that cannot be opened are left to whoever loads them.

    Args:
        images: paths; arrays (``.npy``) are not checked.
        entries: with ``width`` and ``height``, one per image; None: the file does not list it.
    """
    found = {}
    for position, (path, entry) in enumerate(zip(images, entries, strict=True)):
        if entry is None or path.suffix.lower() == ".npy":
            continue
        try:
            with opened_image(path) as image:
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
                width, height = image.size[::-1] if turned else image.size
        except ImageError:
            continue
        ratio = (width / height) / (entry["width"] / entry["height"])
        if max(ratio, 1 / ratio) > 1 + _APART:
            how = ", turned by its EXIF orientation" if turned else ""
            found[position] = f"{path.name} is {width}x{height}{how}, the file says {entry['width']}x{entry['height']}"
    return found
