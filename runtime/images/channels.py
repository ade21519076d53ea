"""The channels of a picture, brought to those that a network takes: RGB, gray, or any other number as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError

from .files import PICTURE_CHANNELS

if TYPE_CHECKING:
    from PIL import Image as PillowImage

Pixels = npt.NDArray[np.uint8]

_SAMPLES_PER_PIXEL, _PHOTOMETRIC, _SEPARATED = 277, 262, 5  # tags of TIFF 6.0, and the inks of print


def in_network_channels(image: PillowImage.Image, preprocessing: Preprocessing) -> PillowImage.Image | Pixels:
    """Return a picture upright by its EXIF orientation, with the channels that the network takes.

    For RGB and BGR that is a picture in RGB: gray is tripled, alpha dropped. For gray it is Pillow's ``L``, the luma of ITU-R 601.
    For another number of channels it is an array ``(H, W, C) uint8`` of the file's own channels.

    Raises:
        ImageError: the file has another number of channels, or pixels of a type whose range is not known.
    """
    if preprocessing.channel_count == 3:
        return as_rgb(image)
    _check_samples(image, preprocessing.channel_count)
    if preprocessing.channel_count == 1:
        return _eight_bits(image).convert("L")
    from PIL import ImageOps

    pixels = np.asarray(ImageOps.exif_transpose(image))
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == preprocessing.channel_count:
        return pixels
    found = 1 if pixels.ndim == 2 else pixels.shape[2]
    many = "" if found == 1 else "s"
    raise ImageError(
        f"the picture has {found} channel{many} of {pixels.dtype} (Pillow's {image.mode}), the network takes "
        f"{preprocessing.channel_count} of uint8; save the array (H, W, {preprocessing.channel_count}) uint8 as .npy"
    )


def as_rgb(image: PillowImage.Image) -> PillowImage.Image:
    """Return the image as RGB, by its EXIF orientation: gray is tripled, alpha dropped, 16 bits become 8.

    Raises:
        ImageError: as :func:`in_network_channels`.
    """
    _check_samples(image, 3)
    return _eight_bits(image).convert("RGB")


def _check_samples(image: PillowImage.Image, count: int) -> None:
    """Refuse a TIFF file with more channels than Pillow gives: it drops the rest without a word. Inks may have an alpha."""
    tags = getattr(image, "tag_v2", {})
    found = tags.get(_SAMPLES_PER_PIXEL, 1)
    if found > PICTURE_CHANNELS + (tags.get(_PHOTOMETRIC) == _SEPARATED):
        raise ImageError(
            f"the picture has {found} channels, and pictures, TIFF too, are read with {PICTURE_CHANNELS} at most; "
            f"save the array (H, W, {count}) uint8 of those that the network takes as .npy"
        )


def _eight_bits(image: PillowImage.Image) -> PillowImage.Image:
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # of the same colours; Pillow warns where such alphas are dropped at once
    if image.mode.startswith("I"):  # 16 bits, sometimes stored in 32; convert("RGB") would clip them to white
        levels = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(levels)
    if image.mode == "F":
        raise ImageError("the image holds floating-point pixels, whose range is not known; save it as 8-bit RGB")
    return image
