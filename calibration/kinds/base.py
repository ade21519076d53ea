"""What a kind of task is in this room: how labels are read, how answers are judged, what may be lost.

There are two ways to judge. Of most kinds the outputs of all images are kept, ``(N, size)``, and each image has a loss: see
:class:`CalibrationKind`. Where outputs are too large for that, or a metric is no mean over images, each image becomes one row of
numbers, from which the metric of any set of images can be computed: see :mod:`.rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.fit import ImagePlacement

Floats = npt.NDArray[np.float64]
Outputs = npt.NDArray[np.floating[Any]]
Array = npt.NDArray[Any]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """A figure of accuracy.

    Attributes:
        name: for people.
        share: whether it is a share, which is shown in percent; otherwise it has the unit of :meth:`CalibrationKind.unit`.
        lower_is_better: whether a smaller value is better.
        has_unit: whether the unit stands beside it; False for a ratio that is neither a share nor in the unit.
    """

    name: str
    share: bool = True
    lower_is_better: bool = False
    has_unit: bool = True


@dataclass(frozen=True)
class Usual:
    """The best answer that does not look at the image: what a network must beat to have learned its task.

    Attributes:
        answer: for people, as in ``always answering 'male'``.
        per_image: ``(N,)`` its figures on images with labels as the kind's ``per_image`` gives them, or its rows ``(N, K)``.
        room: how much of the main metric a perfect answer would gain.
        metric: name of the metric, for people.
        unit: behind a figure: `` points`` for shares, otherwise a space and the unit, or nothing.
        more: what else to say, behind a semicolon.
    """

    answer: str
    per_image: Floats
    room: float
    metric: str
    unit: str
    more: str = ""


class ImageLabels(Protocol):
    """The labels of one task that are read image by image, in the order of the images: maps, boxes."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, position: int) -> Any | None:
        """Return the label of one image at the network's size; None if it has none."""
        ...

    def part(self, positions: npt.NDArray[np.intp]) -> ImageLabels:
        """Return the labels of some of the images."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of all labels."""
        ...

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """``(N,) bool``: which images have one."""
        ...


class CalibrationKind:
    """A kind whose outputs are kept for all images, ``(N, size)`` each.

    Attributes:
        metrics: by key, the main one first: budgets are about it.
        labelled: whether there can be labels at all.
        each_image: whether an array of labels has one entry per image.
        by_rows: whether it is a :class:`~mtl_deploy.calibration.kinds.rows.RowKind`.
        chooses: whether an answer is a class, so that agreement is a share of equal answers.
        right_or_wrong: whether :meth:`per_image` is 0 or 1, so that intervals are those of shares.
        one_number: whether a label is one number in the task's unit, as an age.
        corrects_mean: whether INT8 graphs are corrected by the mean error of this output.
        least: error below which an answer is no sign of a broken graph, although the output hardly varies.
    """

    metrics: ClassVar[Mapping[str, Metric]]
    labelled: ClassVar[bool] = True
    each_image: ClassVar[bool] = True
    by_rows: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    right_or_wrong: ClassVar[bool] = False
    one_number: ClassVar[bool] = False
    corrects_mean: ClassVar[bool] = False
    least: ClassVar[float] = 0.0

    # ---- metrics

    @property
    def main(self) -> str:
        """Key of the main metric."""
        return next(iter(self.metrics))

    def main_of(self, task: Task) -> str:
        """Return the key of a task's main metric, where that depends on its fields; all that it may be are shares, or none is."""
        return self.main

    @property
    def share(self) -> bool:
        """Whether the main metric is a share, and so a budget too; otherwise a budget is in the unit, or a share of the error."""
        return self.metrics[self.main].share

    def loss(self, figure: Floats) -> Floats:
        """Return the main metric with its sign chosen so that larger is worse."""
        return figure if self.metrics[self.main].lower_is_better else -figure

    def takes_number(self, task: Task) -> bool:
        """Return whether a label of this task is one number in its unit, see :attr:`one_number`."""
        return self.one_number

    def unit(self, task: Task) -> str | None:
        """Return the unit of differences and of metrics that are no shares."""
        return task.unit

    def unit_of_differences(self, task: Task, labels: Labels | None) -> str | None:
        """Return the unit of :meth:`differences_on`, which stands beside the metrics of a cell too."""
        return self.unit(task)

    def classes(self, task: Task) -> int | None:
        """Return the number of a task's classes; None if it is not known or there are none."""
        return len(task.labels) or task.size or None

    def mismatch(self, task: Task, other: Task) -> str | None:
        """Return how answers of two networks differ in what they are, to put behind "has"; None: they can be compared."""
        return None if self.same_size(task, other) else f"{task.size} outputs and {other.size}"

    def same_size(self, task: Task, other: Task) -> bool:
        """Return whether answers of two networks mean the same, as far as sizes tell."""
        return task.size == other.size

    # ---- labels

    def columns(self, task: Task) -> tuple[str, ...]:
        """Return the columns of a CSV file that hold its labels; the task has labels if the file has all of them."""
        return (task.name,)

    def column_forms(self, task: Task) -> tuple[tuple[str, ...], ...]:
        """Return all sets of columns that may hold its labels, see :meth:`columns`; the first one that a file has is used."""
        return (self.columns(task),)

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        """Read labels as they are written.

        Args:
            task: whose labels they are.
            cells: one text per image; where :meth:`columns` are several, their texts with ``BETWEEN`` of
                :mod:`mtl_deploy.calibration.kinds.cells` between.
            comma: whether numbers may have a decimal comma.

        Returns:
            the labels, ``(N, ...)``, :attr:`unknown` where a cell is empty or cannot be used; and by position of a cell that cannot
            be used, the reason.
        """
        raise NotImplementedError

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        """Check labels that come as an array, one per image.

        Raises:
            ImageError: the shape, the type or a value does not fit the task, or its kind has no labels of this form.
        """
        raise ImageError(f"{where}: labels of kind {task.kind} do not come as an array; leave it out")

    def label_warnings(self, task: Task, labels: Labels) -> list[str]:
        """Return what makes labels weak, one sentence each, beyond what holds for all kinds.

        Args:
            task: whose labels they are.
            labels: ``(N, ...)``, of the images that have one.
        """
        return []

    @property
    def unknown(self) -> float | int:
        """What stands for a label that is not known: NaN or -1."""
        return float("nan")

    def placed(self, task: Task, labels: Labels, placements: Sequence[ImagePlacement]) -> Labels:
        """Bring labels in the frame of their images to the network's input, where they are compared.

        Args:
            task: whose labels they are.
            labels: ``(N, ...)``, known or not.
            placements: where each image lies in the network's input.
        """
        return labels

    def comparable(self, task: Task, labels: Labels) -> Labels:
        """Return of labels what is the same for two networks that prepare the images in different ways."""
        return labels

    def from_files(
        self, task: Task, folder: Path, root: Path, images: Sequence[Path]
    ) -> tuple[Labels | None, tuple[str, ...]]:
        """Find labels in a folder of labels that are in no table, as in COCO's JSON, and warnings; None if there are none.

        Args:
            task: whose labels they are.
            folder: of the labels of all tasks.
            root: of the images: their paths below it name them.
            images: their paths.

        Returns:
            as :meth:`parse`'s, ``(N, ...)``, in the frame of the images: :meth:`placed` follows.

        Raises:
            OptionError: there are some for this task, and they cannot be used.
        """
        return None, ()

    def find_labels(
        self, task: Task, folder: Path, root: Path, images: Sequence[Path], preprocessing: Preprocessing
    ) -> tuple[ImageLabels | None, tuple[str, ...]]:
        """Find labels that are read image by image in a folder of labels, and warnings; None if there are none. For a RowKind.

        Args:
            task: whose labels they are.
            folder: of the labels of all tasks.
            root: of the images: their paths below it name them.
            images: their paths.
            preprocessing: the network's size and how images are brought to it.

        Raises:
            OptionError: there are some for this task, and they cannot be used.
        """
        return None, ()

    def labels_from_array(
        self, task: Task, array: Array, preprocessing: Preprocessing, where: str, positions: npt.NDArray[np.intp]
    ) -> ImageLabels | None:
        """Return labels that are read image by image from an array of an ``.npz`` file; None: they are :meth:`from_array`'s.

        Args:
            task: whose labels they are.
            array: one entry per image of the file.
            preprocessing: the network's size and how images are brought to it.
            where: name of the array in errors.
            positions: of the images that are used.
        """
        return None

    # ---- answers of all images

    def kept(self, task: Task, output: Array) -> Outputs:
        """Return what is kept of a batch's output, ``(N, size)``, and given to the methods below: less, where outputs are large.

        Args:
            task: with its size.
            output: ``(N, ...)``, as the graph gives it.
        """
        return output.reshape(len(output), -1)

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        """Return ``(N, size)`` answers in the unit that differences have."""
        return outputs.astype(np.float64)

    def choices(self, task: Task, outputs: Outputs, decoded: bool) -> npt.NDArray[np.int64]:
        """Return the class ``(N,)`` that the runtime would predict, -1 where an output is NaN; of a kind that chooses."""
        raise NotImplementedError

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        """Return the figure of each image that the main metric is the mean of, ``(N,)``; NaN without a label.

        Args:
            task: the task.
            outputs: ``(N, size)``, the graph's, flattened.
            labels: ``(N, ...)``, some of which are known.
            decoded: whether the graph decodes; False: it gives the network's own output.
        """
        raise NotImplementedError

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        """Return the metrics by key, the main one first, over images whose labels are all known."""
        return {self.main: float(self.per_image(task, outputs, labels, decoded).mean())}

    def scale(self, task: Task, expected: Outputs) -> float:
        """Return what differences between two networks are relative to."""
        return 1.0

    def agreement(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> float | None:
        """Return the share of images with the same answer; None for a kind of values."""
        if not self.chooses:
            return None
        ours, theirs = (self.choices(task, each, decoded) for each in (found, expected))
        return float(((ours == theirs) & (ours >= 0)).mean())

    def differences(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        """Return how far each value is from another network's, ``(N, size)``; NaN where one of them is."""
        if self.chooses:
            return np.abs(found.astype(np.float64) - expected)
        apart = np.abs(self.values(task, found, decoded) - self.values(task, expected, decoded))
        return apart / self.scale(task, expected)

    def differences_on(
        self, task: Task, found: Outputs, expected: Outputs, labels: Labels | None, decoded: bool
    ) -> Floats:
        """Return :meth:`differences`, in a unit of the labels' where there are any."""
        return self.differences(task, found, expected, decoded)

    def weight(self, task: Task, expected: Outputs) -> Floats | float:
        """Return what outputs are multiplied by before INT8 is checked against FP32: one for each value where units differ."""
        return 1.0

    def changes(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        """Return what stands for losses without labels, ``(N,)``: 1.0 where the class changed, or the mean distance."""
        if self.chooses:
            ours, theirs = (self.choices(task, each, decoded) for each in (found, expected))
            return np.asarray((ours != theirs) | (ours < 0), np.float64)
        distance = self.differences(task, found, expected, decoded).mean(axis=1)
        return np.where(np.isnan(distance), np.inf, distance)

    def bounded(self, task: Task, *, decoded: bool) -> bool:
        """Return whether outputs are probabilities, which :attr:`least` is about."""
        return task.gives_probabilities or (decoded and task.of.of_classes)

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        """Return the best answer that does not look at the image, on images whose labels are known; None: there is none to beat."""
        return None

    # ---- what two graphs are compared by when a method of quantization is chosen

    def spread_rows(self, task: Task, expected: Array, found: Array) -> Floats:
        """Return one row per image: the error, and what the spread is computed from."""
        rows = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (expected, found))
        one, other = rows
        return np.column_stack([np.abs(one - other).mean(axis=1), one])

    def relative(self, task: Task, rows: Floats) -> float:
        """Return the error over the spread, from all images' :meth:`spread_rows`."""
        means = rows[:, 1:].mean(axis=0)
        spread = float(np.abs(rows[:, 1:] - means).mean())
        return float(rows[:, 0].mean()) / (spread or 1.0)
