"""Labels of dense tasks: one map per image, read when it is needed, so that memory does not grow with the images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import ImageLabels
from mtl_deploy.calibration.kinds.dense import DenseKind, Picture
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError
from mtl_deploy.runtime.files.arrays import read_array
from mtl_deploy.runtime.files.reading import DocumentError, describe, read_bytes
from mtl_deploy.runtime.images.files import label_pixels

from .names import Folders

SUFFIXES = (".png", ".npy")
_SHOWN = 3


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
) -> tuple[dict[str, ImageLabels], tuple[str, ...]]:
    """Find labels that are read image by image: maps in ``<folder>/<task>/<image>.png`` or ``.npy``, or what another kind has.

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
    found: dict[str, ImageLabels] = {}
    folders = Folders()
    warnings: list[str] = []
    for task in tasks:
        if not task.dense:
            own, said = kind_of(task).find_labels(task, folder, root, images, preprocessing)
            warnings += said
            found |= {} if own is None else {task.name: own}
            continue
        if not (folder / task.name).is_dir():
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
            return _kind(task).from_numbers(task, read_array(file), file)
        except (OSError, DocumentError) as error:
            raise ImageError(f"{file}: cannot be read ({describe(error)})") from error
    return _kind(task).from_pixels(task, label_pixels(file), file)


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
    return _kind(task).at_size(task, truth, preprocessing, where)


def _kind(task: Task) -> DenseKind:
    return cast("DenseKind", kind_of(task))
