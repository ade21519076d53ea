"""Several images that are one input, such as two frames, or a picture and its depth: their channels one behind another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError


def shares(images: Sequence[Any], preprocessing: Preprocessing) -> list[Preprocessing]:
    """Return, for each image of one input, the preprocessing of its own channels, in the image's order (R, G, B).

    An array brings its own number of channels, ``(H, W)`` one; pictures and files share the others evenly.

    Args:
        images: in the order of their channels; one at least.
        preprocessing: of the whole input.

    Raises:
        ImageError: an array is no image, or the numbers do not add up to the network's.
    """
    known = [_channels(image) for image in images]
    left = preprocessing.channel_count - sum(count for count in known if count)
    unknown = known.count(0)
    each, rest = divmod(left, unknown) if unknown else (0, left)
    if rest or (unknown and each < 1):
        stated = " + ".join(str(count) if count else "?" for count in known)
        raise ImageError(
            f"got {len(images)} images as one input, of {stated} channels; the network takes {preprocessing.channel_count} in all"
        )
    mean, std = preprocessing.mean, preprocessing.std
    if preprocessing.order == "bgr":
        mean, std = mean[::-1], std[::-1]
    found, start = [], 0
    for count in (count or each for count in known):
        part = slice(start, start + count)
        found.append(replace(preprocessing, mean=mean[part], std=std[part], channels=count))
        start += count
    return found


def _channels(image: Any) -> int:
    """Return the number of an array's channels; 0 where it is not known before a picture is read."""
    if not isinstance(image, np.ndarray):
        return 0
    if image.ndim not in (2, 3) or not image.size:
        raise ImageError(
            f"got {image.dtype} of shape {image.shape} as a part of one input; expected uint8 (H, W) or (H, W, channels)"
        )
    return 1 if image.ndim == 2 else int(image.shape[2])
