"""From a graph's outputs to predictions, in numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.activation import probabilities
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import DENSE_KINDS, Kind, Task
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.images.fit import ImagePlacement

from .maps import dense_values, unseen_class
from .summary import class_name, describe, describe_numbers, describe_raw, summarize, summarize_raw

_NOT_FINITE = "(NaN or infinite numbers)"

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Prediction:
    """What a network says about one image for one task.

    Attributes:
        task: the task's name.
        kind: the task's kind.
        value: for a regression the value in its unit (an array where the task has several), for classes the class's index, for
            ``raw`` the network's own tensor for this image, float32. For
            dense kinds an array of the original image's size: ``(H, W) uint8`` (or ``int32``) class indices, ``(H, W) float32``
            depth in its unit, ``(H, W, 3) float32`` unit normals. Pixels that the network has not seen, because ``--fit crop``
            cut them off, have the class ``unseen``, depth NaN and zero normals. It may share memory with other images of its batch.
        label: the class's name, or its index as text where the task has no labels; None for a regression and dense kinds.
        probabilities: ``(classes,) float32``, for a binary task of the negative and the positive class; None for a regression and
            dense kinds. They sum to 1, unless the network applies a sigmoid to each class.
        unit: of a regression's or depth's value; None where it has none.
        labels: a segmentation's class names, by index; otherwise, or where the task has none, empty.
        unseen: of a segmentation: the index of pixels outside the crop, 255, or -1 where indices are int32; None where all
            were seen.
        finite: False where the network returned NaN or an infinite number for this image. A class is then not known: ``value`` is
            -1, ``label`` None; a regression's value and maps are as they came, and some classes of a segmentation mean nothing.
    """

    task: str
    kind: Kind
    value: float | int | Array
    label: str | None = None
    probabilities: FloatArray | None = field(default=None, compare=False)
    unit: str | None = None
    labels: tuple[str, ...] = field(default=(), compare=False, repr=False)
    unseen: int | None = field(default=None, compare=False, repr=False)
    finite: bool = True

    def __eq__(self, other: object) -> bool:
        """Whether task, kind, value, label and unit are the same; arrays are compared value by value. NaN equals nothing."""
        if not isinstance(other, Prediction):
            return NotImplemented
        names = (self.task, self.kind, self.label, self.unit)
        return names == (other.task, other.kind, other.label, other.unit) and np.array_equal(self.value, other.value)

    @property
    def dense(self) -> bool:
        """Whether there is one value per pixel."""
        return self.kind in DENSE_KINDS

    @property
    def probability(self) -> float | None:
        """The probability of the chosen class; None for a regression and dense kinds, and where none was chosen."""
        return None if self.probabilities is None or not self.finite else float(self.probabilities[int(self.value)])

    def __str__(self) -> str:
        """For people: ``31.4 years``, ``female (97.1 %)``; for dense kinds a summary, as in ``wall 61.2 %, floor 38.8 %``.

        Of more than 12 numbers the first four, how many there are, and their range.
        """
        words = self._words()
        return visible(words if self.finite else f"{words} {_NOT_FINITE}".strip())

    def _words(self) -> str:
        if self.dense:
            return describe(self.kind, np.asarray(self.value), self.labels, self.unit, self.unseen)
        if self.probabilities is not None:
            return (
                "" if self.probability is None else f"{class_name(self.label or '')} ({100 * self.probability:.1f} %)"
            )
        if self.kind == "raw":
            return describe_raw(np.asarray(self.value))
        return describe_numbers(np.asarray(self.value), self.unit)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready dict; fields that do not apply to the kind are left out, and dense kinds have a summary.

        Where the network returned NaN or infinite numbers, there is ``"finite": False``, and None stands for each of them.
        """
        mark: dict[str, object] = {} if self.finite else {"finite": False}
        if self.dense:
            return summarize(self.kind, np.asarray(self.value), self.labels, self.unit, self.unseen) | mark
        if self.kind == "raw":
            return summarize_raw(np.asarray(self.value)) | mark
        if self.probabilities is None:
            values = [_number(float(value)) for value in np.ravel(self.value)]
            single = not isinstance(self.value, np.ndarray)
            return {"value": values[0] if single else values, "unit": self.unit} | mark
        shares = [_number(round(float(share), 6)) for share in self.probabilities]
        return {"value": self.value if self.finite else None, "label": self.label, "probabilities": shares} | mark


def decode(
    task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None = None
) -> list[Prediction]:
    """Turn a task's output into one prediction per image.

    Args:
        task: with its size.
        output: ``(N, size)``, a dense task's maps or a raw task's tensor; see
            :meth:`~mtl_deploy.runtime.bundle.signature.Signature.sample_shape`.
        form: ``decoded`` where the graph ends in probabilities, scaled values and decoded maps, ``logits`` where it returns
            the network's own outputs: logits, or what the task's activation says.
        placements: where each image lies in the network's input, for dense tasks; None: it has the input's size.
    """
    if task.dense:
        if placements is None:
            placements = [_whole(task, output, form)] * len(output)
        values = dense_values(task, output, form, placements)
        return [
            replace(_dense(task, value, placement), finite=is_finite(sample))
            for value, placement, sample in zip(values, placements, output, strict=False)
        ]
    numbers = output.astype(np.float32, copy=False)
    if task.kind == "raw":
        return [Prediction(task.name, task.kind, value, finite=is_finite(value)) for value in numbers]
    return _decode_values(task, numbers, form)


def _dense(task: Task, value: Array, placement: ImagePlacement) -> Prediction:
    unseen = unseen_class(value) if task.kind == "segmentation" and placement.cropped else None
    return Prediction(task.name, task.kind, value, unit=task.unit, labels=task.labels, unseen=unseen)


def _whole(task: Task, output: Array, form: Outputs) -> ImagePlacement:
    height, width = output.shape[-2:]
    if form == "logits" or not task.upsample:
        height, width = height * max(task.stride, 1), width * max(task.stride, 1)
    return ImagePlacement((height, width), (height, width), (0, 0, height, width))


def _decode_values(task: Task, output: FloatArray, form: Outputs) -> list[Prediction]:
    if task.kind == "regression":
        values = output if form == "decoded" else output * np.float32(task.scale) + np.float32(task.offset)
        return [_regression(task, row) for row in values]
    rows = _probabilities(task, output, form)
    classes = (rows[:, 1] >= task.threshold).astype(int) if task.kind == "binary" else rows.argmax(axis=1)
    return [_class(task, int(index), row) for index, row in zip(classes, rows, strict=True)]


def _class(task: Task, index: int, row: FloatArray) -> Prediction:
    if not is_finite(row):
        return Prediction(task.name, task.kind, -1, None, row, finite=False)
    return Prediction(task.name, task.kind, index, task.labels[index] if task.labels else str(index), row)


def _regression(task: Task, row: FloatArray) -> Prediction:
    value = float(row[0]) if len(row) == 1 else row
    return Prediction(task.name, task.kind, value, unit=task.unit, finite=is_finite(row))


def is_finite(values: Array) -> bool:
    """Return whether an output holds neither NaN nor an infinite number."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _number(value: float) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _probabilities(task: Task, output: FloatArray, form: Outputs) -> FloatArray:
    """Return ``(N, classes)``; a single value per sample is the positive class's."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and infinite logits become NaN
        found = output if form == "decoded" else probabilities(task.applied, output)
    return np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found
