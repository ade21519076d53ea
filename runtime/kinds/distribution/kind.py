"""One number for each image, from probabilities of bins: ages (DEX), angles (HopeNet)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.activation import Activation, probabilities
from mtl_deploy.runtime.bundle.kinds.options import option
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.spaced import FORM, SPACED, listed, read
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite, json_number
from mtl_deploy.runtime.predictions.summary import describe_numbers

from .values import expectation, parts, value_of, values_of


@dataclass(frozen=True)
class DistributionOptions:
    """The fields that only this kind has."""

    values: str | tuple[float, ...] = option(
        SPACED,
        read=read,
        form=FORM,
        doc="the value of each bin, in the task's unit: a list, or start:stop:step without the stop",
    )
    period: float | None = option(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]},
        default=None,
        read=float,
        form="write a number, such as 360",
        doc="for angles: the full circle, in the unit; errors are measured the shorter way round",
    )
    circular: bool = option(
        {"type": "boolean"},
        default=False,
        form="write true or false",
        doc="whether bins lie all around the circle, so that the number is the direction of the mean vector",
    )


class Distribution(Kind):
    """The expectation over the bins, and their probabilities.

    A decoded graph gives ``(N, 1 + k)``: the number, then k probabilities; where the task is circular ``(N, 2 + k)``: the mean
    cosine and the mean sine of the bins' angles first.
    """

    name = "distribution"
    called = "a distribution"
    takes = frozenset(("unit",))
    options = DistributionOptions
    of_classes = True
    example = "distribution:years;values=0:101:1"

    def check(self, task: Task) -> None:
        try:
            values, period, circular = values_of(task), task.options.period, task.options.circular
        except TaskError as error:
            raise TaskError(f"task {task.name!r}: {error}") from None
        if circular and period is None:
            raise TaskError(f"task {task.name!r}: circular needs the period, such as period = 360 for degrees")
        if period is not None and np.ptp(values) > period:
            raise TaskError(
                f"task {task.name!r}: values from {values.min():g} to {values.max():g} are more than one period, {period:g}"
            )
        if circular and len(values) < 3:
            raise TaskError(f"task {task.name!r}: {len(values)} values do not go around a circle; give 3 or more")

    def check_size(self, task: Task, size: int) -> None:
        given, values = task.options.values, listed(task.options.values)
        if len(values) != size:
            span = f"{given!r} " if isinstance(given, str) else ""
            without = ", the stop is left out" if span else ""
            raise TaskError(
                f"task {task.name!r}: values {span}are {len(values)} (from {values[0]:g} to {values[-1]:g}{without}), but the "
                f"network returns {size} values per sample, one per bin"
            )

    def misfit(self, size: int, activation: Activation) -> str | None:
        if activation == "sigmoid":
            return (
                "sigmoids need not sum to 1, so there is no expectation over them; return logits, or declare it ordinal where "
                "each is the probability of being above a threshold"
            )
        return None

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        return (parts(task) + task.size,)

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        means, shares = split(task, output.astype(np.float32, copy=False), form)
        return [
            Prediction(task.name, task.kind, float(value), probabilities=row, unit=task.unit, finite=is_finite(row))
            for value, row in zip(value_of(task, means), shares, strict=True)
        ]

    def words(self, prediction: Prediction) -> str:
        return describe_numbers(np.asarray(prediction.value), prediction.unit)

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        shares = () if prediction.probabilities is None else prediction.probabilities
        return {
            "value": json_number(float(prediction.value)),
            "unit": prediction.unit,
            "probabilities": [json_number(round(float(share), 6)) for share in shares],
        }


def split(task: Task, output: Any, form: Outputs) -> tuple[Any, Any]:
    """Return the expectation ``(N, parts)`` and the probabilities ``(N, k)`` of a graph's output, or of the network's own."""
    if form == "decoded":
        return output[:, : parts(task)], output[:, parts(task) :]
    with np.errstate(invalid="ignore", over="ignore"):
        shares = probabilities(task.applied, output)
        return expectation(task, shares), shares


KIND = Distribution()
