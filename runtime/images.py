"""What an application may pass as images, turned into the tensor that a graph takes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .backend import Array
from .device_array import is_on_device
from .errors import ImageError
from .preprocessing import Preprocessing
from .resize import resize

if TYPE_CHECKING:
    from PIL import Image as PillowImage

    ImageLike = str | os.PathLike[str] | PillowImage.Image | Array
    Images = ImageLike | Sequence[ImageLike]

Pixels = npt.NDArray[np.uint8]

_EXPECTED = "an image is a path, a PIL image, or an array (height, width, 3) uint8, RGB"


def prepare(images: Images, preprocessing: Preprocessing) -> tuple[Array, bool]:
    """Turn images into the graph's input.

    Args:
        images: one image, or a sequence of them, of any sizes; an image is a path, a PIL image, or an array
            ``(H, W, 3) uint8``, RGB. Or a batch ``(N, H, W, 3) uint8``. Where the graph's input is float, also the ready
            ``(N, 3, height, width) float32`` or one ``(3, height, width)`` of it, which is passed on as it is. Or a batch that
            is ready on the GPU (PyTorch, CuPy, pycuda, ...).
        preprocessing: the graph's.

    Returns:
        The C-contiguous tensor, and whether ``images`` was one image. An array that is ready is not copied.

    Raises:
        ImageError: an image cannot be read, or has another dtype or shape; names what was expected and received.
    """
    if isinstance(images, np.ndarray):
        return _from_array(images, preprocessing)
    if isinstance(images, (str, os.PathLike)) or _is_pillow(images):
        return _tensor(_pixels(images, preprocessing)[None], preprocessing), True
    if is_on_device(images):
        return _on_device(images, preprocessing), False
    if not isinstance(images, Sequence):
        raise ImageError(f"got {type(images).__name__}; {_EXPECTED}, or a list of them")
    if not images:
        raise ImageError("got an empty list; pass at least one image")
    return _tensor(np.stack([_pixels(image, preprocessing) for image in images]), preprocessing), False


def _from_array(array: Array, preprocessing: Preprocessing) -> tuple[Array, bool]:
    height, width = preprocessing.height, preprocessing.width
    if array.dtype == np.uint8:
        if array.ndim == 3:
            return _tensor(_pixels(array, preprocessing)[None], preprocessing), True
        if array.ndim != 4 or array.shape[3] != 3 or not array.size:
            raise ImageError(f"got uint8 of shape {array.shape}; expected (H, W, 3) or a batch (N, H, W, 3), RGB")
        if array.shape[1:3] == (height, width):
            return _tensor(np.ascontiguousarray(array), preprocessing), False
        return _tensor(np.stack([_pixels(image, preprocessing) for image in array]), preprocessing), False
    if preprocessing.input == "float" and array.dtype == np.float32:
        if array.ndim in (3, 4) and array.shape[-3:] == (3, height, width) and array.size:
            return np.ascontiguousarray(array if array.ndim == 4 else array[None]), array.ndim == 3
        raise ImageError(f"got float32 of shape {array.shape}; expected (N, 3, {height}, {width}), normalised")
    ready = f" or ready float32 (N, 3, {height}, {width})" if preprocessing.input == "float" else ""
    raise ImageError(f"got {array.dtype} of shape {array.shape}; expected uint8 (H, W, 3) or (N, H, W, 3), RGB{ready}")


def _on_device(array: Any, preprocessing: Preprocessing) -> Any:
    """Check a batch on the GPU as far as its shape tells; the backend checks the rest."""
    height, width = preprocessing.height, preprocessing.width
    expected = (height, width, 3) if preprocessing.input == "uint8" else (3, height, width)
    shape = tuple(array.shape)
    if len(shape) != 4 or shape[1:] != expected or shape[0] < 1:
        raise ImageError(f"got an array of shape {shape} on the GPU; expected (N, {', '.join(map(str, expected))})")
    return array


def _tensor(pixels: Pixels, preprocessing: Preprocessing) -> Array:
    if preprocessing.input == "uint8":
        return pixels
    scale = (1 / (255 * np.asarray(preprocessing.std, np.float64))).astype(np.float32)
    shift = (-np.asarray(preprocessing.mean, np.float64) / preprocessing.std).astype(np.float32)
    return np.ascontiguousarray((pixels * scale + shift).transpose(0, 3, 1, 2), dtype=np.float32)


def _pixels(image: Any, preprocessing: Preprocessing) -> Pixels:
    """Return one image at the network's size."""
    height, width = preprocessing.height, preprocessing.width
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            hint = "; stack a grayscale image three times" if image.ndim == 2 else ""
            raise ImageError(f"got {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3), RGB{hint}")
        return resize(image, height, width)
    if isinstance(image, (str, os.PathLike)):
        return read_image(image, height, width)
    if _is_pillow(image):
        return _from_pillow(image, height, width)
    raise ImageError(f"got {type(image).__name__}; {_EXPECTED}")


def read_image(path: str | os.PathLike[str], height: int, width: int) -> Pixels:
    """Read an image file and resize it to ``(height, width, 3) uint8``, RGB, upright by its EXIF orientation.

    Raises:
        ImageError: the file is missing, truncated, no image, or so large that it may be a decompression bomb.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ImageError(f"{os.fspath(path)}: reading files needs Pillow: pip install 'mtl-deploy[images]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _from_pillow(image, height, width)
    except UnidentifiedImageError as error:
        raise ImageError(f"{os.fspath(path)}: not an image that Pillow knows") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(f"{os.fspath(path)}: larger than {Image.MAX_IMAGE_PIXELS} pixels; shrink it first") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{os.fspath(path)}: cannot be read ({reason})") from error


def _from_pillow(image: PillowImage.Image, height: int, width: int) -> Pixels:
    """Return the image as RGB at a size: grey is tripled, alpha dropped, 16 bits become 8."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, sometimes held in 32; convert("RGB") would clip them to white
        levels = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(levels)
    if image.mode == "F":
        raise ImageError("the image holds floating-point pixels, whose range is not known; save it as 8-bit RGB")
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def _is_pillow(value: object) -> bool:
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)
