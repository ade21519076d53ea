"""One of k + 1 ranks for each image, from k thresholds: the rank is how many are passed.

Sources: CORAL, Cao, Mirjalili, Raschka: Rank consistent ordinal regression for neural networks with application to age estimation,
Pattern Recognition Letters 140, 2020. CORN, Shi, Cao, Raschka: Deep neural networks for rank-consistent ordinal regression based on
conditional probabilities, Pattern Analysis and Applications 26, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.activation import Activation, probabilities
from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.spaced import FORM, SPACED, listed, read
from mtl_deploy.runtime.predictions.decoding import FloatArray, Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.summary import class_name, describe_numbers


@dataclass(frozen=True)
class OrdinalOptions:
    """The fields that only this kind has."""

    values: str | tuple[float, ...] | None = option(
        {"anyOf": [*SPACED["anyOf"], {"type": "null"}]},
        default=None,
        read=read,
        form=FORM,
        doc="the value of each rank, in the task's unit, ascending: a list, or start:stop:step without the stop",
    )
    decoding: str = option(
        {"enum": ["coral", "corn"]},
        default="coral",
        form="write coral or corn",
        doc=(
            "what a logit means: coral, that the rank is above its threshold; corn, that it is above it given that it is above the "
            "previous one"
        ),
    )


class Ordinal(Kind):
    """The rank, its value or its label, and the probabilities of being above each threshold."""

    name = "ordinal"
    called = "an ordinal task"
    takes = frozenset(("labels", "unit", "threshold"))
    options = OrdinalOptions
    of_classes = True
    most_outputs = 0
    after_colon = "labels"
    example = "ordinal:small,medium,large"

    def check(self, task: Task) -> None:
        try:
            values = _listed(task)
        except TaskError as error:
            raise TaskError(f"task {task.name!r}: {error}") from None
        if any(other <= one for one, other in pairwise(values)):
            raise TaskError(f"task {task.name!r}: values of ranks ascend, and these do not")
        if values and task.labels and len(values) != len(task.labels):
            raise TaskError(
                f"task {task.name!r}: {len(values)} values for {len(task.labels)} labels; give one per rank"
            )
        if task.unit is not None and not values:
            raise TaskError(f"task {task.name!r}: ranks without values have no unit; give values, one per rank")

    def check_size(self, task: Task, size: int) -> None:
        for what, given in (("labels", task.labels), ("values", _listed(task))):
            if given and len(given) != size + 1:
                raise TaskError(
                    f"task {task.name!r} has {len(given)} {what} but the network returns {size} values per sample: {size} "
                    f"thresholds tell {size + 1} ranks apart"
                )

    def misfit(self, size: int, activation: Activation) -> str | None:
        if activation in ("softmax", "log_softmax"):
            return (
                f"after a {activation} there is one probability per class, not per threshold; declare it multiclass, or "
                "distribution for the mean over the classes"
            )
        return None

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        shares = above(task, output.astype(np.float32, copy=False), form)
        return [_prediction(task, int(rank), row) for rank, row in zip(ranks_of(task, shares), shares, strict=True)]

    def words(self, prediction: Prediction) -> str:
        if prediction.label is not None:
            return class_name(prediction.label)
        if isinstance(prediction.value, float):
            return describe_numbers(np.asarray(prediction.value), prediction.unit)
        return f"rank {prediction.value}" if prediction.finite else ""

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        shares = () if prediction.probabilities is None else prediction.probabilities
        value = prediction.value if prediction.finite else None
        rounded = [json_number(round(float(share), 6)) for share in shares]
        return {"value": value, "label": prediction.label, "unit": prediction.unit, "probabilities": rounded}


def above(task: Task, output: FloatArray, form: Outputs) -> FloatArray:
    """Return the probabilities ``(N, k)`` of being above each threshold, of the same type."""
    if form == "decoded":
        return output
    with np.errstate(invalid="ignore"):
        found = probabilities(task.applied, output.reshape(-1, 1)).reshape(output.shape)
        return np.cumprod(found, axis=1, dtype=found.dtype) if task.options.decoding == "corn" else found


def ranks_of(task: Task, shares: FloatArray) -> npt.NDArray[np.int64]:
    """Return the rank ``(N,)``: how many probabilities are above the task's threshold; -1 where one is NaN."""
    with np.errstate(invalid="ignore"):
        passed = (shares > np.float32(task.threshold)).sum(axis=1)
    return np.where(np.isnan(shares).any(axis=1), -1, passed).astype(np.int64)


def numbers_of(task: Task, ranks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the value of each rank, or the rank itself where the task has no values; NaN for -1."""
    values = np.array(_listed(task) or range(task.size + 1), np.float64)
    return np.where(ranks < 0, np.nan, values[np.maximum(ranks, 0)])


def _listed(task: Task) -> tuple[float, ...]:
    return listed(task.options.values or ())


def _prediction(task: Task, rank: int, row: FloatArray) -> Prediction:
    fine = is_finite(row) and rank >= 0
    value = float(numbers_of(task, np.array([rank]))[0]) if task.options.values else rank
    label = task.labels[rank] if task.labels and fine else None
    return Prediction(task.name, task.kind, value, label, row, unit=task.unit, finite=fine)


KIND = Ordinal()
