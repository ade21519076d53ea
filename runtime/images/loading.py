"""What an application may pass as images, turned into the tensor that a graph takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.preprocessing import Interpolation, Preprocessing
from mtl_deploy.runtime.cuda.arrays import is_on_device
from mtl_deploy.runtime.errors import ImageError

from .array_resize import resize_array
from .channels import as_rgb, hint, in_network_channels, pixels_of_array, pixels_of_array_file
from .files import ARRAY_SUFFIX, failing_as, opened_image
from .fit import ImagePlacement, place
from .stacks import shares

if TYPE_CHECKING:
    from PIL import Image as PillowImage

    ImageLike = str | os.PathLike[str] | PillowImage.Image | Array
    Images = ImageLike | Sequence[ImageLike | tuple[ImageLike, ...]]

Pixels = npt.NDArray[np.uint8]

_MOST_PIXELS = 1 << 27  # pixels that an image may have before it is cropped: a strip of 1x5000 would become 256x1280000


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


def prepare(images: Images, preprocessing: Preprocessing) -> tuple[Array, bool]:
    """Turn images into the graph's input.

    Args:
        images: see :func:`prepare_all`; where sizes are free, all have the size of the first.
        preprocessing: the graph's.

    Returns:
        The C-contiguous tensor, and whether ``images`` was a single image. A ready array is not copied.

    Raises:
        ImageError: an image cannot be read, or has another dtype or shape; names what was expected and received.
    """
    prepared = prepare_all(images, preprocessing)
    if len(prepared.batches) > 1:
        sizes = ", ".join("{}x{}".format(*size) for size in dict.fromkeys(place.input for place in prepared.placements))
        raise ImageError(
            f"got images that become {sizes}; one call takes one size: pass them one by one, or use predict"
        )
    return prepared.batches[0][0], prepared.single


def prepare_all(images: Images, preprocessing: Preprocessing) -> PreparedImages:
    """Turn images of any sizes into the graph's inputs.

    Args:
        images: one image, or a sequence of them, of any sizes; an image is a path, a PIL image, or an array
            ``(H, W, C) uint8``, RGB where C is 3, also ``(H, W)`` where C is 1; a path may be that of an ``.npy`` file with such an
            array. Or a batch ``(N, H, W, C) uint8``, which counts as ready where it has the network's
            size: it is passed on as it is, without any crop. In a list, several images that are one input are a tuple,
            ``[(first, second), ...]``: their channels one behind another are the network's. Where the graph's input is float, also
            the ready ``(N, C, height, width) float32`` or one ``(C, height, width)`` of it, which is passed on as it is:
            normalised, and in the network's order of channels. Or a ready batch on the GPU (PyTorch, CuPy, pycuda, ...).
        preprocessing: the graph's. Where its sizes are free, sides of batches and ready arrays are multiples of ``multiple``;
            images are brought to multiples.

    Raises:
        ImageError: an image cannot be read, or has another dtype or shape; names what was expected and received.
    """
    if isinstance(images, np.ndarray):
        return _from_array(images, preprocessing)
    if isinstance(images, (str, os.PathLike)) or _is_pillow(images):
        return _stacked([load_pixels(images, preprocessing)], preprocessing, single=True)
    if is_on_device(images):
        return _on_device(images, preprocessing)
    if not isinstance(images, Sequence):
        raise ImageError(f"got {type(images).__name__}; {_expected(preprocessing)}, or a list of them")
    if not images:
        raise ImageError("got an empty list; pass at least one image")
    return _stacked([load_pixels(image, preprocessing) for image in images], preprocessing)


def _expected(preprocessing: Preprocessing) -> str:
    """For errors: what may be passed."""
    return f"an image is a path, a PIL image, or an array (H, W, {preprocessing.channel_count}) uint8{preprocessing.colours}"


def _from_array(array: Array, preprocessing: Preprocessing) -> PreparedImages:
    channels = preprocessing.channel_count
    if array.dtype == np.uint8:
        if array.ndim == 3 or (array.ndim == 2 and channels == 1):
            return _stacked([load_pixels(array, preprocessing)], preprocessing, single=True)
        if array.ndim != 4 or array.shape[3] != channels or not array.size:
            raise ImageError(
                f"got uint8 of shape {array.shape}; expected (H, W, {channels}) or a batch (N, H, W, {channels})"
                f"{preprocessing.colours}{hint(array, channels)}"
            )
        if preprocessing.multiple:
            _check_sides(array.shape, array.shape[1:3], preprocessing)
        elif array.shape[1:3] != (preprocessing.height, preprocessing.width):
            return _stacked([load_pixels(image, preprocessing) for image in array], preprocessing)
        return _ready(_tensor(np.ascontiguousarray(array), preprocessing), array.shape[1:3])
    expected = ", ".join(_sides(preprocessing))
    if preprocessing.input == "float" and array.dtype == np.float32:
        sides = array.shape[-2:]
        wanted = sides if preprocessing.multiple else (preprocessing.height, preprocessing.width)
        if array.ndim in (3, 4) and array.shape[-3:] == (channels, *wanted) and array.size:
            _check_sides(array.shape, sides, preprocessing)
            tensor = np.ascontiguousarray(array if array.ndim == 4 else array[None])
            return _ready(tensor, sides, single=array.ndim == 3)
        raise ImageError(f"got float32 of shape {array.shape}; expected (N, {channels}, {expected}), normalised")
    ready = f" or ready float32 (N, {channels}, {expected})" if preprocessing.input == "float" else ""
    raise ImageError(
        f"got {array.dtype} of shape {array.shape}; expected uint8 (H, W, {channels}) or (N, H, W, {channels})"
        f"{preprocessing.colours}{ready or hint(array, channels)}"
    )


def _on_device(array: Any, preprocessing: Preprocessing) -> PreparedImages:
    """Check the shape of a batch on the GPU; the backend checks the rest."""
    uint8 = preprocessing.input == "uint8"
    shape = tuple(array.shape)
    sides = shape[1:3] if uint8 else shape[2:4]
    wanted = sides if preprocessing.multiple else (preprocessing.height, preprocessing.width)
    count = preprocessing.channel_count
    if len(shape) != 4 or shape[1:] != ((*wanted, count) if uint8 else (count, *wanted)) or shape[0] < 1:
        names = (*_sides(preprocessing), str(count)) if uint8 else (str(count), *_sides(preprocessing))
        raise ImageError(f"got an array of shape {shape} on the GPU; expected (N, {', '.join(names)})")
    _check_sides(shape, sides, preprocessing)
    return _ready(array, sides)


def _sides(preprocessing: Preprocessing) -> tuple[str, str]:
    """For errors: the sides that a tensor has."""
    return ("height", "width") if preprocessing.multiple else (str(preprocessing.height), str(preprocessing.width))


def _check_sides(shape: tuple[int, ...], sides: tuple[int, ...], preprocessing: Preprocessing) -> None:
    step = preprocessing.multiple
    if step and any(side < 1 or side % step for side in sides):
        raise ImageError(f"got an array of shape {shape}; height and width must be multiples of {step}")


def _ready(tensor: Any, sides: tuple[int, ...], *, single: bool = False) -> PreparedImages:
    height, width = sides
    placement = ImagePlacement((height, width), (height, width), (0, 0, height, width))
    count = int(tensor.shape[0])
    return PreparedImages(((tensor, tuple(range(count))),), (placement,) * count, single)


def _stacked(
    images: Sequence[tuple[Pixels, ImagePlacement]], preprocessing: Preprocessing, *, single: bool = False
) -> PreparedImages:
    """Make one batch per size of the images."""
    positions: dict[tuple[int, int], list[int]] = {}
    for position, (_, placement) in enumerate(images):
        positions.setdefault(placement.input, []).append(position)
    batches = []
    for found in positions.values():
        pixels = images[found[0]][0][None] if len(found) == 1 else np.stack([images[position][0] for position in found])
        batches.append((_tensor(pixels, preprocessing), tuple(found)))
    return PreparedImages(tuple(batches), tuple(placement for _, placement in images), single)


def _tensor(pixels: Pixels, preprocessing: Preprocessing) -> Array:
    if preprocessing.input == "uint8":
        return pixels
    scale = (1 / (255 * np.asarray(preprocessing.std, np.float64))).astype(np.float32)
    shift = (-np.asarray(preprocessing.mean, np.float64) / preprocessing.std).astype(np.float32)
    if preprocessing.order == "bgr":
        pixels = pixels[..., ::-1]
    return np.ascontiguousarray((pixels * scale + shift).transpose(0, 3, 1, 2), dtype=np.float32)


def load_pixels(image: Any, preprocessing: Preprocessing) -> tuple[Pixels, ImagePlacement]:
    """Return one image at the network's size, ``(height, width, C) uint8``, RGB where C is 3, and where the image lies in it.

    Args:
        image: a path, a PIL image, or an array ``(H, W, C) uint8``, RGB where C is 3, or ``(H, W)`` where C is 1. Or a tuple of
            them, of one size, whose channels together are the network's, see :mod:`~mtl_deploy.runtime.images.stacks`.
        preprocessing: the graph's.

    Raises:
        ImageError: it cannot be read, has other channels than the network takes, or is something else.
    """
    if isinstance(image, tuple):
        return _several(image, preprocessing)
    if isinstance(image, np.ndarray):
        return _from_pixels(pixels_of_array(image, preprocessing), preprocessing)
    if isinstance(image, (str, os.PathLike)):
        if os.fspath(image).lower().endswith(ARRAY_SUFFIX):
            with failing_as(os.fspath(image)):
                return _from_pixels(pixels_of_array_file(image, preprocessing), preprocessing)
        with opened_image(image, channels=preprocessing.channel_count) as opened:
            return _from_pillow(opened, preprocessing)
    if _is_pillow(image):
        with failing_as("the image"):
            return _from_pillow(image, preprocessing)
    raise ImageError(f"got {type(image).__name__}; {_expected(preprocessing)}")


def _several(images: tuple[Any, ...], preprocessing: Preprocessing) -> tuple[Pixels, ImagePlacement]:
    """Return several images that are one input, their channels one behind another."""
    if not images or any(isinstance(image, tuple) for image in images):
        raise ImageError(f"got a tuple of {len(images)} images; {_expected(preprocessing)}, or a tuple of those")
    parts = [load_pixels(image, part) for image, part in zip(images, shares(images, preprocessing), strict=True)]
    placement = parts[0][1]
    if any(other != placement for _, other in parts):
        sizes = " and ".join("{}x{}".format(*other.original) for _, other in parts)
        raise ImageError(f"got images of {sizes} as one input; all images of one input must have the same size")
    return np.concatenate([pixels for pixels, _ in parts], axis=-1), placement


def _from_pixels(image: Pixels, preprocessing: Preprocessing) -> tuple[Pixels, ImagePlacement]:
    placement = _placed(image.shape[0], image.shape[1], preprocessing)
    pixels = resize_array(image, *placement.box[2:], preprocessing.interpolation)
    return _boxed(pixels, placement, preprocessing), placement


def _placed(height: int, width: int, preprocessing: Preprocessing) -> ImagePlacement:
    placement = place(height, width, preprocessing)
    high, wide = placement.box[2:]
    if preprocessing.fit == "crop" and high * wide > _MOST_PIXELS:
        raise ImageError(
            f"an image of {height}x{width} becomes {high}x{wide} before its centre is cut out; crop it yourself"
        )
    return placement


def _boxed(pixels: Pixels, placement: ImagePlacement, preprocessing: Preprocessing) -> Pixels:
    """Put an image into its letterbox, or crop it; one that fills the input exactly is returned as it is."""
    if not placement.bordered:
        return pixels
    canvas = np.empty((*placement.input, preprocessing.channel_count), np.uint8)
    canvas[...] = preprocessing.fill
    placement.paste(pixels, canvas)
    return canvas


def _from_pillow(image: PillowImage.Image, preprocessing: Preprocessing) -> tuple[Pixels, ImagePlacement]:
    upright = in_network_channels(image, preprocessing)
    if isinstance(upright, np.ndarray):  # Pillow would weight the other channels by the fourth, an alpha to it
        return _from_pixels(upright, preprocessing)
    placement = _placed(upright.height, upright.width, preprocessing)
    pixels = _resized(upright, *placement.box[2:], preprocessing.interpolation)
    return _boxed(pixels, placement, preprocessing), placement


def original_pixels(path: str | os.PathLike[str], preprocessing: Preprocessing | None = None) -> Pixels:
    """Read an image file at its own size as a picture for people, ``(H, W, 3) uint8``, RGB, upright by its EXIF orientation.

    Args:
        path: of the file.
        preprocessing: of the graph that took it; None: one of RGB. Of an ``.npy`` file with more than three channels, the first
            three are shown; of one with fewer, the first as gray.

    Raises:
        ImageError: the file is missing, truncated, not an image, or so large that it may be a decompression bomb.
    """
    if os.fspath(path).lower().endswith(ARRAY_SUFFIX):
        with failing_as(os.fspath(path)):
            pixels = pixels_of_array_file(path, preprocessing or Preprocessing())
            return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    with opened_image(path) as image:
        return np.asarray(as_rgb(image))


def _resized(image: PillowImage.Image, height: int, width: int, interpolation: Interpolation) -> Pixels:
    from PIL import Image

    pixels = np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()]))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _is_pillow(value: object) -> bool:
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)
