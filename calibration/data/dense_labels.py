"""Labels of dense tasks: one map per image, read when it is needed, so that memory does not grow with the images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.files.arrays import read_array
from mtl_deploy.runtime.files.reading import DocumentError, describe, read_bytes
from mtl_deploy.runtime.images.files import label_pixels
from mtl_deploy.runtime.images.fit import place
from mtl_deploy.runtime.images.resize import nearest_pixels

from .names import Folders

Picture = npt.NDArray[Any]
SUFFIXES = (".png", ".npy")
UNKNOWN_CLASS = 255
_SHOWN = 3


class DenseLabels(Protocol):
    """The label maps of one task, in the order of the images."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, position: int) -> Picture | None:
        """Return the map of one image at the network's size, see :func:`at_size`; None if it has none."""
        ...

    def part(self, positions: npt.NDArray[np.intp]) -> DenseLabels:
        """Return the maps of some of the images."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of all maps."""
        ...

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """``(N,) bool``: which images have a map."""
        ...


@dataclass(frozen=True)
class LabelFiles:
    """Label maps in files.

    Attributes:
        task: the task.
        files: one per image; None for an image without one.
        preprocessing: has the network's size and how images are brought to it.
    """

    task: Task
    files: tuple[Path | None, ...]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def read(self, position: int) -> Picture | None:
        """Read one file.

        Raises:
            ImageError: it cannot be read, or is not a label map of such a task.
        """
        file = self.files[position]
        return None if file is None else at_size(self.task, _read(file, self.task), self.preprocessing, str(file))

    def part(self, positions: npt.NDArray[np.intp]) -> LabelFiles:
        """Return the maps of some of the images."""
        return LabelFiles(self.task, tuple(self.files[position] for position in positions), self.preprocessing)

    @property
    def digest(self) -> str:
        """SHA-256 of the files' content."""
        sha = hashlib.sha256()
        for file in self.files:
            sha.update(b"none" if file is None else hashlib.sha256(_content(file)).digest())
        return sha.hexdigest()

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images have a file."""
        return np.array([file is not None for file in self.files], np.bool_)


@dataclass(frozen=True)
class LabelArray:
    """Label maps in one array of an ``.npz`` file.

    Attributes:
        task: the task.
        array: ``(N, H, W)``, or ``(N, H, W, 3)`` for normals.
        preprocessing: has the network's size and how images are brought to it.
        where: name of the array in errors.
        positions: ``(n,)``: the images' places in the array; None: all of them, in order.
    """

    task: Task
    array: Picture
    preprocessing: Preprocessing
    where: str
    positions: npt.NDArray[np.intp] | None = None

    @property
    def places(self) -> npt.NDArray[np.intp]:
        """``(n,)``: the images' places in the array."""
        return np.arange(len(self.array)) if self.positions is None else self.positions

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.places)

    def read(self, position: int) -> Picture | None:
        """Return the map of one image.

        Raises:
            ImageError: it is not a label map of such a task.
        """
        return at_size(self.task, np.asarray(self.array[self.places[position]]), self.preprocessing, self.where)

    def part(self, positions: npt.NDArray[np.intp]) -> LabelArray:
        """Return the maps of some of the images."""
        return replace(self, positions=self.places[positions])

    @property
    def digest(self) -> str:
        """SHA-256 of the images' maps."""
        digest = hashlib.sha256()
        for position in self.places:
            digest.update(np.ascontiguousarray(self.array[position]).tobytes())
        return digest.hexdigest()

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """All images have one."""
        return np.ones(len(self), np.bool_)


def find_label_files(
    folder: Path, source: Path, images: Sequence[Path], tasks: Sequence[Task], preprocessing: Preprocessing
) -> tuple[dict[str, DenseLabels], tuple[str, ...]]:
    """Find the label maps of dense tasks: ``<folder>/<task>/<image>.png`` or ``.npy``.

    Args:
        folder: has one subfolder per task.
        source: the images' folder or list; an image's path below it, without suffix, is the path of its map; its bare name is too.
        images: their paths.
        tasks: the network's.
        preprocessing: the network's.

    Returns:
        by task, and warnings. Tasks without a subfolder are left out.

    Raises:
        OptionError: the subfolder of a dense task has no file for any of the images.
    """
    root = source if source.is_dir() else source.parent
    found: dict[str, DenseLabels] = {}
    folders = Folders()
    warnings = []
    for task in tasks:
        if not task.dense or not (folder / task.name).is_dir():
            continue
        files = tuple(_file_of(image, root, folder / task.name, folders) for image in images)
        missing = [image.name for image, file in zip(images, files, strict=True) if file is None]
        if len(missing) == len(images):
            raise OptionError(
                f"{folder / task.name}: no label file for any of the {len(images)} images; the one of {images[0].name} must be "
                f"called {images[0].stem}.png or {images[0].stem}.npy"
            )
        if missing:
            names = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            warnings.append(f"{task.name}: no label file for {len(missing)} of {len(images)} images ({names})")
        found[task.name] = LabelFiles(task, files, preprocessing)
    return found, tuple(warnings)


def _file_of(image: Path, root: Path, folder: Path, folders: Folders) -> Path | None:
    try:
        inside = image.relative_to(root)
    except ValueError:
        inside = Path(image.name)
    for base in (folder / inside, folder / image.name):
        for suffix in SUFFIXES:
            if (file := base.with_suffix(suffix)).is_file():
                return file
    for base in (folder / inside, folder / image.name):  # spelt differently
        for suffix in SUFFIXES:
            if (other := folders.find(base.with_suffix(suffix))) is not None and other.is_file():
                return other
    return None


def _content(file: Path) -> bytes:
    try:
        return read_bytes(file, None)
    except OSError as error:
        raise ImageError(f"{file}: cannot be read ({describe(error)})") from error


def _read(file: Path, task: Task) -> Picture:
    if file.suffix.lower() == ".npy":
        try:
            return read_array(file)
        except (OSError, DocumentError) as error:
            raise ImageError(f"{file}: cannot be read ({describe(error)})") from error
    array = label_pixels(file)
    if task.kind == "depth":
        if array.dtype == np.uint8:
            raise ImageError(
                f"{file}: 8 bits are too few for depth; use a 16-bit PNG in millimetres, or .npy in {_unit(task)}"
            )
        if task.unit not in ("m", "metre", "metres", "meter", "meters", "mm", "millimetres", "millimeters"):
            raise ImageError(
                f"{file}: a PNG holds millimetres, but the task's unit is {task.unit!r}; use .npy in that unit"
            )
        return np.asarray(array, np.float32) / np.float32(
            1 if str(task.unit).startswith("mil") or task.unit == "mm" else 1000
        )
    if task.kind == "normals":  # the usual encoding
        return np.asarray(array, np.float32) / np.float32(127.5) - np.float32(1)
    return array


def at_size(task: Task, truth: Picture, preprocessing: Preprocessing, where: str) -> Picture:
    """Check a label map and bring it to the network's size as its image is, by nearest neighbours: no classes or edges are mixed.

    Args:
        task: a dense one.
        truth: the map. Classes are integers ``(H, W)``; 255 or the index of no class is unknown. Depth is ``(H, W)``; NaN, 0 or
            less is unknown. Normals are ``(H, W, 3)``; NaN or length 0 is unknown, and others are scaled to unit length.
        preprocessing: the network's.
        where: name of the map in errors.

    Returns:
        int32 with -1 for unknown pixels, or float32 with NaN for them; a border around the image is unknown, and what a crop cuts
        off is left out.

    Raises:
        ImageError: the map has the wrong shape or type.
    """
    expected = (3,) if task.kind == "normals" else ()
    if truth.ndim != 2 + len(expected) or truth.shape[2:] != expected or not truth.size:
        form = "(H, W, 3)" if expected else "(H, W)"
        raise ImageError(f"{where}: shape {truth.shape}; a label map for {task.kind} is {form}")
    if task.kind == "segmentation":
        if truth.dtype.kind not in "iub":
            raise ImageError(f"{where}: {truth.dtype}; a label map for segmentation holds class indices")
        values: Picture = truth.astype(np.int32)
        values[(values < 0) | (values >= (task.size or UNKNOWN_CLASS))] = -1
        return _placed(values, preprocessing, np.int32(-1))
    if truth.dtype.kind not in "iuf":
        raise ImageError(f"{where}: {truth.dtype}; a label map for {task.kind} holds numbers")
    values = truth.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        if task.kind == "depth":
            values[~(np.isfinite(values) & (values > 0))] = np.nan
        else:
            length = np.linalg.norm(values, axis=-1, keepdims=True)
            values = np.where(length > 0.1, values / length, np.float32(np.nan))
    return _placed(values, preprocessing, np.float32(np.nan))


def _placed(values: Picture, preprocessing: Preprocessing, border: Any) -> Picture:
    """Place the map where its image lies in the network's input."""
    spot = place(values.shape[0], values.shape[1], replace(preprocessing, multiple=0))
    height, width = spot.box[2:]
    inner: Picture = values[nearest_pixels(values.shape[0], height)][:, nearest_pixels(values.shape[1], width)]
    if not spot.bordered:
        return inner
    framed = np.full((*spot.input, *values.shape[2:]), border, values.dtype)
    spot.paste(inner, framed)
    return framed


def _unit(task: Task) -> str:
    return task.unit or "the task's unit"
