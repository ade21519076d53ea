"""Several labels for each image, each of which holds or not: one sigmoid per label, as for the 40 attributes of CelebA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.activation import Activation, probabilities
from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import FloatArray, Kind, Prediction, json_number
from mtl_deploy.runtime.predictions.summary import LISTED, class_name


@dataclass(frozen=True)
class MultilabelOptions:
    """The fields that only this kind has."""

    thresholds: tuple[float, ...] = option(
        {"type": "array", "items": {"type": "number"}},
        default=(),
        form="write one probability per label, such as 0.5,0.3,0.7",
        doc="the probability from which on each label holds; without it, threshold applies to all labels",
    )
    pairs: bool = option(
        {"type": "boolean"},
        default=False,
        form="write true or false",
        doc="whether the network gives two values per label under one softmax, for 'does not hold' and 'holds'",
    )


class Multilabel(Kind):
    """A label holds from its threshold on, whatever the others do."""

    name = "multilabel"
    called = "a multilabel task"
    takes = frozenset(("labels", "threshold"))
    options = MultilabelOptions
    of_classes = True
    most_outputs = 0
    example = "multilabel:smiling,young,glasses"

    def check(self, task: Task) -> None:
        own = task.options.thresholds
        if (reason := _misfit(task)) is not None:
            raise TaskError(f"task {task.name!r}, activation {task.activation}: {reason}")
        if bad := [each for each in own if not 0 < each < 1]:
            raise TaskError(f"task {task.name!r}: thresholds: {bad[0]:g} is not between 0 and 1")
        if own and task.threshold != Task.threshold:
            raise TaskError(
                f"task {task.name!r}: threshold {task.threshold:g} and thresholds; give threshold for all labels, or thresholds, "
                "one per label"
            )
        if own and task.labels and len(own) != len(task.labels):
            raise TaskError(
                f"task {task.name!r}: {len(own)} thresholds for {len(task.labels)} labels; give one per label, or threshold for "
                "all of them"
            )

    def check_size(self, task: Task, size: int) -> None:
        each = 2 if task.options.pairs else 1
        if size % each:
            raise TaskError(
                f"task {task.name!r} has pairs, but the network returns {size} values per sample, an odd number"
            )
        for what, given in (("labels", task.labels), ("thresholds", task.options.thresholds)):
            if given and each * len(given) != size:
                pairs = "; if two values belong to each label, say pairs = true" if size == 2 * len(given) else ""
                raise TaskError(
                    f"task {task.name!r} has {len(given)} {what} but the network returns {size} values per sample, and "
                    f"{'two are' if each == 2 else 'each is'} one label{pairs}"
                )

    def misfit(self, size: int, activation: Activation) -> str | None:
        return None  # it depends on pairs: see check

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        return (labels_of(task),)

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        shares = label_probabilities(task, output.astype(np.float32, copy=False), form)
        with np.errstate(invalid="ignore"):
            held = np.asarray(shares >= thresholds(task, shares.shape[1]))  # NaN is below all
        finite = np.asarray(np.isfinite(shares).all(axis=1))
        return [
            Prediction(task.name, task.kind, holds, probabilities=row, labels=task.labels, finite=bool(fine))
            for holds, row, fine in zip(held, shares, finite, strict=True)
        ]

    def words(self, prediction: Prediction) -> str:
        shares = np.ravel(np.zeros(0) if prediction.probabilities is None else prediction.probabilities)
        held = np.flatnonzero(prediction.value)
        if not held.size:
            return f"none of {shares.size} labels"
        listed = [f"{class_name(_label(prediction, index))} ({100 * shares[index]:.1f} %)" for index in held[:LISTED]]
        more = f", ... ({held.size} of {shares.size} labels)" if held.size > LISTED else ""
        return f"{', '.join(listed)}{more}"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        shares = () if prediction.probabilities is None else prediction.probabilities
        held = [bool(holds) for holds in prediction.value]
        names = [_label(prediction, index) for index, holds in enumerate(held) if holds]
        return {
            "value": held if prediction.finite else None,
            "labels": names if prediction.finite else None,
            "probabilities": [json_number(round(float(share), 6)) for share in shares],
        }


def labels_of(task: Task) -> int:
    """Return how many labels there are; 0 if that is not known."""
    return len(task.labels) or task.size // (2 if task.options.pairs else 1)


def label_probabilities(task: Task, output: FloatArray, form: Outputs) -> FloatArray:
    """Return ``(N, labels)``, of the same type, from a graph's output of that shape, or of the network's own."""
    if form == "decoded":
        return output
    with np.errstate(invalid="ignore", over="ignore"):
        if task.options.pairs:
            found = probabilities(task.applied, output.reshape(-1, 2))[:, 1]
        else:
            found = probabilities(task.applied, output.reshape(-1, 1))
    return found.reshape(len(output), -1)


def thresholds(task: Task, count: int) -> npt.NDArray[np.float32]:
    """Return the probability from which each of ``count`` labels holds, ``(count,)``."""
    own = task.options.thresholds
    return np.array(own, np.float32) if own else np.full(count, task.threshold, np.float32)


def _misfit(task: Task) -> str | None:
    softmax = task.applied in ("softmax", "log_softmax")
    if softmax and not task.options.pairs:
        return (
            f"after a {task.applied} exactly one label holds; declare it multiclass, or say pairs = true if it is over two values "
            "for each label, or return one logit per label (or its sigmoid)"
        )
    if task.options.pairs and task.applied == "sigmoid":
        return "two sigmoids are two answers about one label; return the second of each pair, without pairs"
    return None


def _label(prediction: Prediction, index: int) -> str:
    return prediction.labels[index] if prediction.labels else str(index)


KIND = Multilabel()
