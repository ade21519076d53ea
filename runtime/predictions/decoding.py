"""From a graph's outputs to predictions, in numpy: what a prediction is, and what each kind of task adds to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.kinds.base import TaskKind
from mtl_deploy.runtime.bundle.kinds.registry import task_kind
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.images.fit import ImagePlacement

from .drawing import Mark, Panel, Pixels

_NOT_FINITE = "(NaN or infinite numbers)"

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Prediction:
    """What a network says about one image for one task.

    Attributes:
        task: the task's name.
        kind: the task's kind.
        value: for a regression the value in its unit (an array where the task has several), for classes the class's index, for
            ``raw`` the network's own tensor for this image, float32, for ``vector`` its
            :class:`~mtl_deploy.runtime.kinds.vector.values.Values`, for ``rotation`` a matrix ``(3, 3) float32``, for
            ``embedding`` the vector ``(k,) float32``. For
            dense kinds an array of the original image's size: ``(H, W) uint8`` (or ``int32``) class indices, ``(H, W) uint8`` masks
            of 0 and 1, ``(H, W) float32`` depth in its unit, ``(H, W, 3) float32`` unit normals. Pixels that the network has not
            seen, because ``--fit crop`` cut them off or they lie around one of ``boxes``, have the class ``unseen`` (masks too),
            depth NaN and zero normals. It may share memory with other images of its batch.
            Of a multilabel task ``(labels,) bool``: which hold. Of an ordinal task the rank's value in its unit, or the rank.
            A kind whose predictions have several parts has a frozen dataclass of its own here.
        label: the class's name, or its index as text where the task has no labels; None for a regression and dense kinds.
        probabilities: ``(classes,) float32``, for a binary task of the negative and the positive class; None for a regression and
            dense kinds. They sum to 1, unless the network applies a sigmoid to each class. Of a multilabel task one for each label,
            of a distribution for each bin, of an ordinal task for being above each threshold.
        unit: of a regression's or depth's value; None where it has none.
        labels: a segmentation's class names, by index; otherwise, or where the task has none, empty.
        unseen: of a segmentation: the index of pixels outside the crop, 255, or -1 where indices are int32; None where all
            were seen.
        finite: False where the network returned NaN or an infinite number for this image. A class is then not known: ``value`` is
            -1, ``label`` None; a regression's value and maps are as they came, and some classes of a segmentation mean nothing.
    """

    task: str
    kind: str
    value: Any
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
        return names == (other.task, other.kind, other.label, other.unit) and kind_of(self.kind).same(
            self.value, other.value
        )

    @property
    def dense(self) -> bool:
        """Whether there is one value per pixel."""
        return kind_of(self.kind).dense

    @property
    def probability(self) -> float | None:
        """The probability of the chosen class; None for a regression and dense kinds, and where none was chosen."""
        if self.probabilities is None or not self.finite or not kind_of(self.kind).one_class:
            return None
        return float(self.probabilities[int(self.value)])

    def __str__(self) -> str:
        """For people: ``31.4 years``, ``female (97.1 %)``; for dense kinds a summary, as in ``wall 61.2 %, floor 38.8 %``.

        Of more than 12 numbers the first four, how many there are, and their range.
        """
        words = kind_of(self.kind).words(self)
        return visible(words if self.finite else f"{words} {_NOT_FINITE}".strip())

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready dict; fields that do not apply to the kind are left out, and dense kinds have a summary.

        Where the network returned NaN or infinite numbers, there is ``"finite": False``, and None stands for each of them.
        """
        return kind_of(self.kind).to_dict(self) | ({} if self.finite else {"finite": False})


class Kind(TaskKind):
    """A kind of task in the runtime: what :class:`~mtl_deploy.runtime.bundle.kinds.base.TaskKind` says, and its predictions.

    Attributes:
        one_class: whether a prediction's value is the index of a class, whose probability is at that place.
        averages: whether the mean of two predictions' values means something: numbers on one scale, a float or an array.
    """

    one_class: ClassVar[bool] = False
    averages: ClassVar[bool] = False

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        """Turn a task's output into one prediction per image.

        Args:
            task: with its size.
            output: ``(N, ...)`` as the graph returns it: ``decoded_shape`` or ``raw_shape`` behind the batch.
            form: ``decoded`` where the graph decodes, ``logits`` where it returns the network's own output.
            placements: where each image lies in the network's input; no more are decoded than there are. None: it has the
                input's size.
        """
        raise NotImplementedError

    def words(self, prediction: Prediction) -> str:
        """Return a prediction in one line, for people; marks of numbers that are not finite are added to it."""
        raise NotImplementedError

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        """Return a prediction as a JSON-ready dict, with None for each number that is not finite."""
        raise NotImplementedError

    def same(self, one: Any, other: Any) -> bool:
        """Return whether two predictions' values are equal."""
        return bool(np.array_equal(one, other))

    def panel(self, task: Task, prediction: Prediction, image: Pixels) -> Panel | None:
        """Return a picture of its own for ``--show``; None: the prediction stands in words below the image.

        Args:
            task: the task.
            prediction: for this image.
            image: ``(H, W, 3) uint8``, RGB.
        """
        return None

    def marks(self, task: Task, prediction: Prediction) -> Sequence[Mark]:
        """Return what ``--show`` draws onto the image, in the image's own pixels; its words stand below it nevertheless."""
        return ()

    def marks_on(self, task: Task, prediction: Prediction, image: Pixels) -> Sequence[Mark]:
        """Return the same where the image ``(H, W, 3) uint8`` must be known, as for what is drawn at its middle."""
        return self.marks(task, prediction)


def kind_of(name: str) -> Kind:
    """Return a kind with its decoding.

    Raises:
        TaskError: there is none of this name.
    """
    return cast("Kind", task_kind(name))


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
    return kind_of(task.kind).decode(task, output, form, placements)


def is_finite(values: Array) -> bool:
    """Return whether an output holds neither NaN nor an infinite number."""
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def json_number(value: float) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None
