"""Calibration data: the user's images at the network's size, with the labels of each task that has some."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import CalibrationKind, ImageLabels
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import ImageError, OptionError

from .arrays import EXPECTED, read_arrays
from .checks import data_warnings
from .dense_labels import find_label_files
from .images import find_images, read_images
from .labels import FileLabels, Labels, NoColumnError, csv_labels, known
from .stored import Images
from .strata import stratified
from .utkface import utkface_labels


@dataclass(frozen=True, eq=False)
class CalibrationData:
    """Images with their labels.

    Attributes:
        images: ``(N, H, W, C) uint8``, RGB where C is 3, at the network's size; many are in a temporary file.
        labels: by vector task: for a regression ``(N,) float64`` in the task's unit, NaN if unknown (``(N, size)`` for
            several values); for classes ``(N,) int64``, -1 if unknown. Tasks without any label are left out.
        source: where the images come from, for people.
        skipped: by file that was drawn but not used, the reason.
        warnings: what makes the data weak, one sentence each.
        digest: SHA-256 of the images' shape and pixels and of the labels; computed if it is not given.
        dense: by dense task, its label maps, one per image, which are read when they are needed; likewise by task of another kind
            whose labels are read image by image. Tasks without any are left out.
    """

    images: Images
    labels: Mapping[str, Labels]
    source: str
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    digest: str = ""
    dense: Mapping[str, ImageLabels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Compute the digest.

        Raises:
            ImageError: the images have the wrong shape or type, or the number of labels is not that of the images.
        """
        if self.images.dtype != np.uint8 or len(self.images.shape) not in (3, 4) or not self.images.size:
            raise ImageError(
                f"{self.source}: {self.images.dtype} of shape {self.images.shape}; expected uint8 (N, H, W, C)"
            )
        counts = {name: len(values) for name, values in self.labels.items()}
        for name, count in (counts | {name: len(values) for name, values in self.dense.items()}).items():
            if count != len(self.images):
                raise ImageError(f"{self.source}: {count} labels of task {name!r} for {len(self.images)} images")
        if not self.digest:
            object.__setattr__(self, "digest", _digest(self.images, self.labels, self.dense))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def labelled(self) -> bool:
        """Whether at least one task has labels."""
        return bool(self.labels or self.dense)

    def parts(self, shares: Sequence[float], seed: int = 0) -> npt.NDArray[np.intp]:
        """Divide the images, so that accuracy is not measured on the images that set the ranges.

        Images that are equal pixel by pixel stay together. Each class, and each quantile of a regression, is in every part by the
        part's share, the rarest first (see :func:`~mtl_deploy.calibration.data.strata.stratified`); the rest is random. Label maps
        are not considered.

        Args:
            shares: of the images, one per part, each between 0 and 1, with a sum of 1; met as closely as equal images allow.
            seed: the same seed gives the same parts.

        Returns:
            ``(N,)``: each image's part, counted from 0; no part is empty.

        Raises:
            OptionError: a share is not between 0 and 1, or the sum is not 1.
            ImageError: there are fewer different images than parts.
        """
        if not all(0 < share < 1 for share in shares) or not np.isclose(sum(shares), 1):
            raise OptionError(
                f"shares {', '.join(f'{share:g}' for share in shares)}: choose them between 0 and 1, with a sum of 1"
            )
        units = self._units()
        if len(units) < len(shares):
            equal = "all equal" if len(units) == 1 else f"{len(units)} of them different"
            searched = ", one to choose layers with" if len(shares) > 2 else ""
            raise ImageError(
                f"{self.source}: {len(self.images)} images, {equal}; at least {len(shares)} different ones are needed, one to "
                f"calibrate with{searched} and one to evaluate on"
            )
        part = np.empty(len(self.images), np.intp)
        for unit, chosen in zip(units, stratified(self.labels, units, shares, seed), strict=True):
            part[unit] = chosen
        return part

    def select(self, chosen: npt.NDArray[np.bool_]) -> CalibrationData:
        """Return the images that a mask ``(N,) bool`` chooses, in their order."""
        return self._part(np.flatnonzero(chosen))

    def _units(self) -> list[list[int]]:
        """Return the positions of the images, grouped by equal pixels."""
        units: dict[bytes, list[int]] = {}
        for position in range(len(self.images)):
            units.setdefault(hashlib.sha256(self.images[position].tobytes()).digest(), []).append(position)
        return list(units.values())

    def _part(self, positions: npt.NDArray[np.intp]) -> CalibrationData:
        labels = {name: values[positions] for name, values in self.labels.items() if known(values[positions]).any()}
        parts = {name: values.part(positions) for name, values in self.dense.items()}
        dense = {name: part for name, part in parts.items() if part.known.any()}
        return replace(self, images=self.images[positions], labels=labels, dense=dense, digest="")


def load_data(
    source: Path | None,
    preprocessing: Preprocessing,
    tasks: Sequence[Task],
    *,
    samples: int | None = None,
    seed: int = 0,
    labels: Path | None = None,
) -> CalibrationData:
    """Read the user's images and their labels.

    Files that cannot be read, or whose names are malformed, are left out and named; others are drawn instead.

    Args:
        source: a folder of images, searched with its subfolders; a text file with one path per line; an ``.npy`` file
            ``(N, H, W, C) uint8``, RGB where C is 3; or an ``.npz`` file with such an array ``images`` and, for tasks with labels,
            ``labels/<task>``. File names like UTKFace's are labels of tasks called age, gender and race. None is an error: random
            numbers would give ranges that no image has.
        preprocessing: its height and width.
        tasks: the network's.
        samples: largest number of images to read; None: all. Above 128 MiB they take ``N * height * width * C`` bytes of
            the temporary folder instead of memory.
        seed: for drawing; the same seed draws the same images.
        labels: a CSV file, see :func:`~mtl_deploy.calibration.data.labels.csv_labels`; it is used instead of UTKFace's names. Or a
            folder with such a ``labels.csv`` for vector tasks, and one subfolder per dense task, see
            :func:`~mtl_deploy.calibration.data.dense_labels.find_label_files`. Or a ``.json`` file, for kinds that read COCO's
            format.

    Returns:
        the images in the order of the source.

    Raises:
        ImageError: there are no images, or none can be read; or an array has the wrong shape or type, or labels that do not fit.
        OptionError: the number of samples is below 1, ``source`` is None, or the CSV file cannot be used.
    """
    if source is None:
        raise OptionError(f"INT8 needs images to calibrate with; {EXPECTED}")
    if samples is not None and samples < 1:
        raise OptionError(f"{samples} calibration samples: use at least 1")
    if source.suffix.lower() in (".npy", ".npz") and not source.is_dir():
        if labels is not None:
            raise OptionError(
                f"{labels}: names image files, but {source} is an array; put the labels into an .npz file as labels/<task>"
            )
        found = read_arrays(source, preprocessing, tasks, samples, seed)
        described = f"{counted(len(found.images), 'image')} from {source}"
        data = CalibrationData(found.images, found.labels, described, {}, found.warnings, dense=found.dense)
    else:
        data = _from_files(source, preprocessing, tasks, samples, seed, labels)
    tasks = [task for task in tasks if kind_of(task).labelled]
    silent = [task for task in tasks if not kind_of(task).by_rows or (data.labelled and task.name not in data.dense)]
    weak = data_warnings(data.images, data.labels, silent, labelled=data.labelled)
    return replace(data, warnings=(*data.warnings, *weak))


def _from_files(
    source: Path,
    preprocessing: Preprocessing,
    tasks: Sequence[Task],
    samples: int | None,
    seed: int,
    labels: Path | None,
) -> CalibrationData:
    paths = find_images(source, preprocessing.channel_count)
    vectors = [task for task in tasks if kind_of(task).labelled and not kind_of(task).by_rows]
    file = labels
    coco = labels is not None and labels.suffix.lower() == ".json" and not labels.is_dir()
    if coco:
        file = None
    beside = False
    if labels is not None and labels.is_dir():
        file = labels / "labels.csv" if (labels / "labels.csv").is_file() else None
        beside = any(_in_folder(labels, task) for task in tasks)
        if file is None and not beside:
            raise OptionError(f"{labels}: has neither labels.csv nor a file or folder named after a task")
    try:
        truth = utkface_labels(paths, vectors) if file is None else csv_labels(file, source, paths, vectors)
    except NoColumnError as error:
        if not beside:
            raise
        # the table may serve other networks
        truth = FileLabels(warnings=(f"{error}; the other labels of the folder are used",))
    truth = truth or FileLabels()
    usable = [path for path in paths if path not in truth.malformed]
    if not usable:
        path, reason = next(iter(truth.malformed.items()))
        raise ImageError(f"{source}: none of the images ({len(paths)}) can be used; {path.name}: {reason}")
    loaded = read_images(usable, preprocessing, source, samples=samples, seed=seed)
    skipped = truth.malformed | loaded.skipped
    row = {path: i for i, path in enumerate(paths)}
    rows = [row[path] for path in loaded.paths]
    columns = {name: column[rows] for name, column in truth.values.items()}
    more: list[str] = []
    if labels is not None and (coco or labels.is_dir()):
        root = source if source.is_dir() else source.parent
        for task in vectors:
            found, said = kind_of(task).from_files(task, labels, root, loaded.paths)
            columns |= {} if found is None else {task.name: found}
            more += said
    by_name = {task.name: task for task in tasks}
    values = {
        name: kind_of(by_name[name]).placed(by_name[name], column, loaded.placements)
        for name, column in columns.items()
        if known(column).any()
    }
    dense: Mapping[str, ImageLabels] = {}
    noted: tuple[str, ...] = ()
    if labels is not None and (coco or labels.is_dir()):
        dense, noted = find_label_files(labels, source, loaded.paths, tasks, preprocessing)
    if coco and not dense and not values:
        reason = f"{labels}: no task of this network has labels in COCO's format; give a CSV file or a folder"
        raise OptionError("; ".join(noted) or reason)
    if file is not None and columns and not values and not dense:
        drawn = f" of the {len(loaded.paths)} images that were drawn; use more with --calibration-samples"
        none = drawn if len(loaded.paths) < len(usable) else f" of {source}: its cells are empty"
        raise OptionError(f"{labels}: no label of any task is of an image{none}, or leave --labels out")
    if labels is not None and file is None and not dense and not columns:
        raise OptionError(
            f"{labels}: holds no labels that a task of this network reads: maps are in a folder TASK, boxes and points in "
            "COCO's format in a file TASK.json, others in labels.csv"
        )
    left_out = f", {counted(len(skipped), 'file')} left out" if skipped else ""
    described = f", labels from {labels}" if labels else ", labels from UTKFace's file names" if truth.values else ""
    return CalibrationData(
        loaded.array,
        values,
        f"{counted(len(loaded.array), 'image')} from {source}{described}{left_out}",
        {_shown(path, source): reason for path, reason in skipped.items()},
        (*truth.warnings, *noted, *more),
        dense=dense,
    )


def _in_folder(folder: Path, task: Task) -> bool:
    """Return whether a folder of labels holds some for a task, beside a table: a folder or a file of its name."""
    kind = kind_of(task)
    if kind.by_rows and (folder / task.name).is_dir():
        return True
    own = (
        type(kind).from_files is not CalibrationKind.from_files
        or type(kind).find_labels is not CalibrationKind.find_labels
    )
    return own and any(file.stem == task.name for file in folder.iterdir())


def _shown(path: Path, source: Path) -> str:
    folder = source if source.is_dir() else source.parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _digest(images: Images, labels: Mapping[str, Labels], dense: Mapping[str, ImageLabels]) -> str:
    digest = hashlib.sha256(repr(images.shape).encode())
    for position in range(len(images)):
        digest.update(np.ascontiguousarray(images[position]).data)
    for name in sorted(labels):
        values = np.ascontiguousarray(labels[name])
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    for name in sorted(dense):
        digest.update(f"{name} {dense[name].digest}".encode())
    return digest.hexdigest()
