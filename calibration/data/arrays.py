"""Images and labels in NumPy files, ``.npy`` or ``.npz``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import ImageLabels
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.files.arrays import map_array, read_archive
from mtl_deploy.runtime.files.reading import DocumentError, describe
from mtl_deploy.runtime.images.camera import expected_frame
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.loading import load_pixels

from .dense_labels import LabelArray
from .labels import Labels, array_labels, known
from .stored import Images, room_for

if TYPE_CHECKING:
    from mtl_deploy.calibration.kinds.dense import DenseKind

EXPECTED = (
    "give --calibration-data a folder of images, a text file with one path per line, an .npy file (N, H, W, 3) uint8, RGB (or with "
    "the network's other channels), or an .npz file with such an array 'images'; 512 images like those that the network will see "
    "are enough"
)
_MAPPED = 64  # images that are read before the file is mapped anew


@dataclass(frozen=True)
class ArrayData:
    """The content of such a file.

    Attributes:
        images: ``(N, H, W, C) uint8``, RGB where C is 3, at the network's size.
        labels: by vector task, see :class:`~mtl_deploy.calibration.data.dataset.CalibrationData`.
        dense: by dense task.
        warnings: one sentence where arrays are left unused.
    """

    images: Images
    labels: Mapping[str, Labels]
    dense: Mapping[str, ImageLabels]
    warnings: tuple[str, ...]


def read_arrays(
    source: Path, preprocessing: Preprocessing, tasks: Sequence[Task], samples: int | None, seed: int
) -> ArrayData:
    """Read images, and the labels that an ``.npz`` file holds beside them.

    Args:
        source: the file.
        preprocessing: its height and width.
        tasks: the network's.
        samples: how many images to take at most; None: all.
        seed: of the sample.

    Raises:
        ImageError: the file cannot be read, or an array in it has the wrong shape, type or values.
    """
    arrays, unused = _load(source, {"images", *(f"labels/{task.name}" for task in tasks)})
    if (images := arrays.pop("images", None)) is None:
        held = ", ".join(sorted({*arrays, *unused})) or "nothing"
        raise ImageError(f"{source}: no array 'images'; it holds {held}")
    images = _checked(images, source, preprocessing)
    size = (preprocessing.height, preprocessing.width)
    preprocessing = replace(preprocessing, multiple=0)
    if preprocessing.source is None and images.shape[1:3] == size:  # ready for the network, so nothing is cropped
        preprocessing = replace(preprocessing, fit="stretch", resize_to=())
    chosen = np.arange(len(images))
    if samples is not None and samples < len(images):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:samples])
    values: dict[str, Labels] = {}
    dense: dict[str, ImageLabels] = {}
    for task in tasks:
        array = arrays.get(f"labels/{task.name}")
        if array is None:
            continue
        if not kind_of(task).labelled:
            raise ImageError(f"{source}: labels/{task.name}: a raw tensor has no labels; leave the array out")
        where = f"{source}: labels/{task.name}"
        if kind_of(task).each_image and (array.ndim == 0 or len(array) != len(images)):
            raise ImageError(f"{where}: shape {array.shape} for {len(images)} images; expected one label per image")
        if task.dense:
            array = cast("DenseKind", kind_of(task)).from_numbers(task, array, source)
            dense[task.name] = LabelArray(task, array, preprocessing, where, chosen)
            continue
        own = kind_of(task).labels_from_array(task, array, preprocessing, where, chosen)
        if own is not None:
            dense[task.name] = own
            continue
        column = array_labels(task, array, where)[chosen]
        frame = preprocessing.source
        high, wide = images.shape[1:3] if frame is None else (frame.height, frame.width)
        spot = place(high, wide, preprocessing)
        column = kind_of(task).placed(task, column, [spot] * len(column))
        if known(column).any():
            values[task.name] = column
    warning = f"{source.name}: {', '.join(unused)} not used; name label arrays labels/<task>"
    pixels = room_for((len(chosen), *preprocessing.image_shape))
    for i, position in enumerate(chosen):
        if isinstance(images, np.memmap) and i and i % _MAPPED == 0:  # what was read of a mapped file counts as memory
            images = map_array(source)
        pixels[i] = load_pixels(np.asarray(images[position]), preprocessing)[0]
    return ArrayData(pixels, values, dense, (warning,) if unused else ())


def _load(source: Path, wanted: Collection[str]) -> tuple[dict[str, npt.NDArray[Any]], list[str]]:
    """Return the wanted arrays of an .npz file, or the array of an .npy file as ``images``, mapped; and the names of the others."""
    try:
        if source.suffix.lower() == ".npy":
            return {"images": map_array(source)}, []
        return read_archive(source, wanted)
    except (OSError, DocumentError) as error:
        raise ImageError(f"{source}: cannot be read as an array ({describe(error)}); {EXPECTED}") from error


def _checked(images: npt.NDArray[Any], source: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    if (frame := preprocessing.source) is not None:
        if images.dtype == np.uint8 and images.shape[1:] == frame.shape and len(images):
            return images
        raise ImageError(f"{source}: {images.dtype} of shape {images.shape}; {expected_frame(frame, images.shape[1:])}")
    channels = preprocessing.channel_count
    if channels == 1 and images.ndim == 3:
        images = images[..., None]
    if images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == channels and images.size:
        return images
    hint = ""
    if images.ndim == 4 and images.shape[1] == channels:
        hint = "; move the channels to the end: images.transpose(0, 2, 3, 1)"
    elif channels == 3 and (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 1)):
        hint = "; stack grey images three times"
    elif channels == 1 and images.ndim == 4 and images.shape[3] in (3, 4):
        hint = "; make each gray: Image.fromarray(image).convert('L') of Pillow"
    elif images.dtype != np.uint8 and images.ndim == 4:
        hint = "; give the pixels as they are in the file, 0 to 255, without normalisation"
    raise ImageError(
        f"{source}: {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, {channels}){preprocessing.colours}{hint}"
    )
