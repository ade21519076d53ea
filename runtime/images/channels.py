"""The channels of an image, brought to those that a network takes: RGB, gray, or any other number as they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.files.arrays import read_array
from mtl_deploy.runtime.files.reading import DocumentError

from .files import MOST_BYTES, PICTURE_CHANNELS

if TYPE_CHECKING:
    from PIL import Image as PillowImage

Pixels = npt.NDArray[np.uint8]

_SAMPLES_PER_PIXEL, _PHOTOMETRIC, _SEPARATED = 277, 262, 5  # tags of TIFF 6.0, and the inks of print


def pixels_of_array(array: npt.NDArray[Any], preprocessing: Preprocessing) -> Pixels:
    """Return an image ``(H, W, C) uint8`` of as many channels as the network takes; ``(H, W)`` is one channel.

    Raises:
        ImageError: the array has another dtype, shape or number of channels.
    """
    count = preprocessing.channel_count
    if array.dtype == np.uint8 and array.ndim == 2 and count == 1:
        array = array[..., None]
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == count and array.size:
        return array
    form = f"{'(H, W) or ' if count == 1 else ''}(H, W, {count}){preprocessing.colours}"
    raise ImageError(f"got {array.dtype} of shape {array.shape}; expected uint8 {form}{hint(array, count)}")


def hint(array: npt.NDArray[Any], count: int) -> str:
    """Return, for an error, how an array becomes an image of so many channels, or a batch of them: its type first.

    Args:
        array: that was refused: an image, or a batch with four dimensions.
        count: of the channels that the network takes.

    Returns:
        half-sentences, each behind a semicolon; nothing where no way is known.
    """
    if batch := array.ndim == 4:
        array = array[0] if len(array) else array[:, 0]
    last = array.shape[2] if array.ndim == 3 else 0
    hints = []
    if array.dtype != np.uint8 and array.ndim in (2, 3):
        hints.append("give the values as uint8, 0 to 255, without normalisation")
    if count == 3 and (array.ndim == 2 or last == 1):
        hints.append("stack a grayscale image three times")
    elif array.ndim == 3 and array.shape[0] == count != last:
        way = "images.transpose(0, 2, 3, 1)" if batch else "image.transpose(1, 2, 0)"
        hints.append(f"move the channels to the end: {way}")
    elif count == 1 and last in (3, 4):
        hints.append(f"make {'each' if batch else 'it'} gray: Image.fromarray(image).convert('L') of Pillow")
    elif not batch and count == 1 and last > 1 and array.shape[0] in (3, 4):
        hints.append(
            "make planes of colours gray; a batch of gray images has the channel as its last dimension: images[..., None]"
        )
    elif not batch and count == 1 and last > 1:
        hints.append("a batch has the channel as its last dimension: images[..., None]")
    elif count == 3 and last == 4:
        hints.append("leave out the alpha: image[..., :3]")
    return "".join(f"; {way}" for way in hints)


def pixels_of_array_file(path: str | os.PathLike[str], preprocessing: Preprocessing) -> Pixels:
    """Read an image from an ``.npy`` file; see :func:`pixels_of_array`.

    Raises:
        ImageError: the array is no such image.
        DocumentError: the file is damaged, or holds no plain array.
        OSError: it cannot be read.
    """
    try:
        return pixels_of_array(read_array(Path(path), MOST_BYTES), preprocessing)
    except DocumentError as error:
        raise ImageError(error.problem) from error


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
