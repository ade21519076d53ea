"""The user's images as arrays for a graph: those of a folder or a list, or a sample; files that cannot be read are named."""

from __future__ import annotations

import io
import os
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.files.reading import describe
from mtl_deploy.runtime.images.array_resize import resize_array
from mtl_deploy.runtime.images.batches import pieces
from mtl_deploy.runtime.images.camera import packed, picture_for
from mtl_deploy.runtime.images.files import images_in
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.images.loading import load_pixels, prepare

from .arrays import read_arrays
from .names import Folders, read_names
from .natural import natural_images
from .stored import Images, room_for
from .synthetic import synthetic_images

__all__ = [
    "LoadedImages",
    "batches",
    "find_images",
    "generated_images",
    "load_images",
    "read_images",
    "synthetic_images",
]

_DRAWN = 1 << 18  # pixels of a frame, up to which it is drawn at its own size: drawing takes seconds for millions
_GRAIN = 6  # levels of 255


@dataclass(frozen=True)
class LoadedImages:
    """Images at a network's size.

    Attributes:
        array: ``(N, height, width, C) uint8``, RGB where C is 3; in a temporary file if there are many. For a graph that takes
            frames of a camera, these: pictures are stretched to their size.
        paths: of the images, in the array's order; none where they come from an array.
        skipped: by path of a file that was drawn but could not be read, the reason.
        placements: where each of these files' images lies in the network's input; as :attr:`paths`.
    """

    array: Images
    paths: tuple[Path, ...]
    skipped: dict[Path, str]
    placements: tuple[ImagePlacement, ...] = ()


def find_images(source: Path, channels: int = 3) -> list[Path]:
    """List the images in a folder, or those that a text file lists.

    Args:
        source: a folder, searched with its subfolders for files with an image's suffix; hidden ones are left out. Or a text file
            with one path per line, absolute or relative to the file's own folder; empty lines and lines that start with ``#`` are
            left out. A name that no file has is looked for without the quotes around it, and in other spellings, see
            :mod:`~mtl_deploy.calibration.data.names`.
        channels: of the network's images; see :func:`~mtl_deploy.runtime.images.files.images_in`.

    Returns:
        the paths: a folder's in sorted order, a text file's in its own order.

    Raises:
        ImageError: there is no such folder or file, the file is not text, or it lists no image, or absolute paths of Windows alone.
    """
    if source.is_dir():
        return images_in(source, channels)
    try:
        text = read_names(source, errors="surrogateescape")
    except OSError as error:
        raise ImageError(
            f"{source}: {describe(error)}; give a folder of images, or a text file with one path per line"
        ) from error
    except UnicodeDecodeError as error:
        raise ImageError(
            f"{source}: not a text file; give a folder of images, or a text file with one path per line"
        ) from error
    lines = [line.strip() for line in io.StringIO(text, newline=None)]  # splitlines() would break names in two
    folders = Folders()
    named = [line for line in lines if line and not line.startswith("#")]
    found = [_listed(line, source.parent, folders) for line in named]
    if not found:
        raise ImageError(f"{source}: lists no image; write one path per line")
    if not text.isascii() and _has_raw_bytes(text) and not any(map(os.path.lexists, found)):
        raise ImageError(f"{source}: not a text file; give a folder of images, or a text file with one path per line")
    first = PureWindowsPath(named[0].strip('"'))
    if first.is_absolute() and not Path(str(first)).is_absolute() and not any(map(os.path.lexists, found)):
        raise ImageError(f"{source}: {str(first)!r} is an absolute path of Windows; write paths relative to this list")
    return found


def _listed(line: str, folder: Path, folders: Folders) -> Path:
    """Return the path that a line names: with the quotes around it, if a file's name has them, else without them."""
    if (found := folders.find(folder / line)) is not None:
        return found
    if len(line) > 2 and line[0] == line[-1] == '"':  # as "Copy as path" of Windows writes it
        line = line[1:-1]
    return folders.find(folder / line) or folder / line


def _has_raw_bytes(text: str) -> bool:
    """Return whether a text holds bytes that are not UTF-8, which a name on disk may have."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def load_images(
    source: Path, preprocessing: Preprocessing, *, samples: int | None = None, seed: int = 0
) -> LoadedImages:
    """Read images, or a sample of them, resized as the runtime resizes.

    Files that cannot be read are left out and named, and others are drawn instead.

    Args:
        source: see :func:`find_images`; or an ``.npy`` or ``.npz`` file, see
            :func:`~mtl_deploy.calibration.data.arrays.read_arrays`.
        preprocessing: its height, width and channels.
        samples: largest number to read; None: all.
        seed: for drawing; the same seed draws the same files.

    Returns:
        the images in the order of :func:`find_images`.

    Raises:
        ImageError: none can be read, or see :func:`find_images`.
    """
    if source.suffix.lower() in (".npy", ".npz") and not source.is_dir():
        return LoadedImages(read_arrays(source, preprocessing, (), samples, seed).images, (), {})
    return read_images(
        find_images(source, preprocessing.channel_count), preprocessing, source, samples=samples, seed=seed
    )


def read_images(
    paths: Sequence[Path], preprocessing: Preprocessing, source: Path, *, samples: int | None = None, seed: int = 0
) -> LoadedImages:
    """Read images from a list of paths; otherwise like :func:`load_images`.

    Many images are kept in a temporary file, see :mod:`mtl_deploy.calibration.data.stored`.

    Args:
        paths: of the images.
        preprocessing: its height and width.
        source: where the paths come from, for errors.
        samples: largest number to read; None: all.
        seed: for drawing.

    Raises:
        ImageError: none can be read.
    """
    order = list(range(len(paths)))
    if samples is not None:
        random.Random(seed).shuffle(order)
    wanted = len(paths) if samples is None else min(samples, len(paths))
    array = room_for((wanted, *preprocessing.image_shape))
    positions: list[int] = []
    spots: dict[int, ImagePlacement] = {}
    skipped: dict[Path, str] = {}
    fixed = replace(preprocessing, multiple=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # damaged metadata beside intact pixels
        for position in order:
            if len(positions) == wanted:
                break
            try:
                array[len(positions)], spot = load_pixels(paths[position], fixed)
                positions.append(position)
                spots[position] = spot
            except ImageError as error:
                skipped[paths[position]] = str(error).removeprefix(f"{paths[position]}: ")
    if not positions:
        path, reason = next(iter(skipped.items()))
        raise ImageError(f"{source}: none of the images ({len(skipped)}) can be read; {path}: {reason}")
    images: Images = array
    if len(positions) < wanted or samples is not None:
        images = array[np.argsort(positions)]
        positions.sort()
    return LoadedImages(images, tuple(paths[i] for i in positions), skipped, tuple(spots[i] for i in positions))


def generated_images(
    count: int, preprocessing: Preprocessing, *, seed: int, stress: bool = False
) -> npt.NDArray[np.uint8]:
    """Draw images as a graph takes them: at the network's size, or frames of its source.

    Large frames are drawn at a smaller size, enlarged, and given the noise of a camera's sensor.

    Args:
        count: number of images. The first ones do not depend on the count.
        preprocessing: the graph's.
        seed: the same seed gives the same images.
        stress: not like photographs, see :mod:`mtl_deploy.calibration.data.synthetic`.

    Returns:
        ``(count, *preprocessing.image_shape) uint8``.
    """
    draw = synthetic_images if stress else natural_images
    source = preprocessing.source
    if source is None:
        return draw(count, preprocessing.height, preprocessing.width, seed=seed, channels=preprocessing.channel_count)
    view = picture_for(preprocessing)
    share = min(1.0, (_DRAWN / (source.height * source.width)) ** 0.5)
    drawn = max(round(share * source.height), 1), max(round(share * source.width), 1)
    frames = np.empty((count, *source.shape), np.uint8)
    for place, picture in enumerate(draw(count, *drawn, seed=seed, channels=view.channel_count)):
        pixels = resize_array(picture, source.height, source.width, "bicubic")
        if share < 1:
            noise = np.random.default_rng((seed, place)).integers(-_GRAIN, _GRAIN + 1, pixels.shape, dtype=np.int16)
            pixels = np.clip(noise + pixels, 0, 255).astype(np.uint8)
        frames[place] = packed(pixels, source)
    return frames


def batches(images: Images, preprocessing: Preprocessing, size: int, *, least: int = 1) -> Iterator[Array]:
    """Yield batches of a graph's input, prepared from images as the runtime does it; the last one may be smaller.

    Args:
        images: ``(N, height, width, C) uint8``, RGB where C is 3.
        preprocessing: the graph's.
        size: images per batch.
        least: smallest number of images in the last batch; see :func:`~mtl_deploy.runtime.images.batches.pieces`.
    """
    for piece in pieces(images, size, least=least):
        yield prepare(piece, preprocessing)[0]
