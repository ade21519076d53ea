"""Image files: which formats are opened, how large they may be, and one error for whatever is wrong with one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.files.reading import describe, open_file
from mtl_deploy.runtime.signals import handlers_error

if TYPE_CHECKING:
    from PIL import Image as PillowImage

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened, whatever a file is called. Not all that it supports: some start other programs
(EPS starts Ghostscript), others are rare and little tested."""
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
"""The suffixes of the files that are looked for in a folder."""
ARRAY_SUFFIX = ".npy"
"""Of an image that is an array; looked for in a folder where there are no pictures, or where pictures cannot hold the channels."""
PICTURE_CHANNELS = 4
"""Channels that Pillow reads from a picture at most; of a TIFF with more it drops the rest without a word."""
ENCODED = "the encoded image"
"""How errors call an image that came as bytes."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such a file begins
MOST_BYTES = 1 << 30
"""Bytes of an image file. Its pixels are bounded by ``PIL.Image.MAX_IMAGE_PIXELS``, 89,478,485 unless an application sets it."""


def images_in(folder: Path, channels: int = 3) -> list[Path]:
    """List the files of a folder and its subfolders that have an image's suffix, sorted; hidden ones are left out.

    Args:
        folder: to look in.
        channels: of the images that the network takes. ``.npy`` files count where it is not 1 or 3, and where there is no picture.

    Raises:
        ImageError: there is none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES | {ARRAY_SUFFIX}
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    )
    pictures = [path for path in found if path.suffix.lower() in SUFFIXES]
    if channels in (1, 3) and pictures:
        found = pictures
    if not found:
        raise ImageError(
            f"{folder}: no image in this folder or below (looked for {', '.join(sorted(SUFFIXES))} and {ARRAY_SUFFIX})"
        )
    return found


def label_pixels(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Read a picture whose pixels are labels, ``(H, W)`` or ``(H, W, C)``, as it is: palette indices, 16 bits.

    Raises:
        ImageError: as :func:`original_pixels`.
    """
    with opened_image(path) as image:
        return np.asarray(image)


@contextmanager
def opened_image(path: str | os.PathLike[str], *, channels: int = 3) -> Iterator[PillowImage.Image]:
    """Open an image file; whatever goes wrong while it is read becomes an ImageError.

    Args:
        path: of the file.
        channels: that the image must have; more than a picture file can hold is an error.
    """
    name = os.fspath(path)
    _require_pillow(name, "reading files")
    with failing_as(name), open_file(path) as stream:
        yield from _opened(stream, os.fstat(stream.fileno()).st_size, name, channels)


@contextmanager
def opened_encoded(content: bytes | bytearray | memoryview, *, channels: int = 3) -> Iterator[PillowImage.Image]:
    """Open an image that is encoded in memory, as :func:`opened_image` opens a file.

    Args:
        content: a whole file of one of :data:`FORMATS`.
        channels: as for a file.
    """
    _require_pillow(ENCODED, "decoding images")
    with failing_as(ENCODED), io.BytesIO(content) as stream:
        yield from _opened(stream, len(content), ENCODED, channels)


def _require_pillow(name: str, what: str) -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImageError(f"{name}: {what} needs Pillow: pip install 'mtl-deploy[images]'") from None


def _opened(stream: BinaryIO, size: int, name: str, channels: int) -> Iterator[PillowImage.Image]:
    from PIL import Image, UnidentifiedImageError

    if size > MOST_BYTES:
        raise ImageError(f"{name}: larger than {MOST_BYTES >> 20} MiB; shrink it first")
    if channels > PICTURE_CHANNELS:
        raise ImageError(
            f"{name}: the network takes {channels} channels, and pictures, TIFF too, are read with {PICTURE_CHANNELS} at most; "
            f"save the array (H, W, {channels}) uint8 as .npy"
        )
    try:
        opened = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        stream.seek(0)
        if stream.read(4) in _TIFF:
            raise ImageError(
                f"{name}: a damaged TIFF, or one with more channels or other numbers than Pillow reads ({PICTURE_CHANNELS} of "
                f"8 bits at most); save the array (H, W, {channels}) uint8 as .npy"
            ) from error
        raise ImageError(f"{name}: not an image in a supported format ({', '.join(FORMATS)})") from error
    with opened as image:
        if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
            raise ImageError(_too_many(name, Image.MAX_IMAGE_PIXELS))
        yield image


@contextmanager
def failing_as(name: str) -> Iterator[None]:
    """Turn what Pillow and numpy raise for a damaged image into an ImageError: decoders raise errors of any kind."""
    try:
        yield
    except ImageError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:
        if (raised := handlers_error(error)) is not None:
            raise raised from raised.__cause__
        if type(error).__name__ in ("DecompressionBombWarning", "DecompressionBombError"):
            from PIL import Image

            raise ImageError(_too_many(name, Image.MAX_IMAGE_PIXELS)) from error
        reason = "out of memory" if isinstance(error, MemoryError) else describe(error)
        raise ImageError(f"{name}: cannot be read ({reason})") from error


def _too_many(name: str, most: int | None) -> str:
    return f"{name}: larger than {most} pixels; shrink it first"
