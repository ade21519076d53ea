"""From a graph's outputs to predictions, in numpy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .signature import Outputs
from .tasks import Kind, Task

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image for one task.

    Attributes:
        task: the task's name.
        kind: the task's kind.
        value: for a regression the value in its unit (an array where the task has several), for classes the class's index.
        label: the class's name, or its index as text where the task has no labels; None for a regression.
        probabilities: ``(classes,) float32``, for a binary task of the negative and the positive class; None for a regression.
        unit: of a regression's value; None where it has none.
    """

    task: str
    kind: Kind
    value: float | int | FloatArray
    label: str | None = None
    probabilities: FloatArray | None = field(default=None, compare=False)
    unit: str | None = None

    @property
    def probability(self) -> float | None:
        """The probability of the class that was chosen; None for a regression."""
        return None if self.probabilities is None else float(self.probabilities[int(self.value)])

    def __str__(self) -> str:
        """For people: ``31.4 years``, ``female (97.1 %)``."""
        if self.probability is not None:
            return f"{self.label} ({100 * self.probability:.1f} %)"
        values = ", ".join(f"{value:.4g}" for value in np.ravel(self.value))
        return f"{values} {self.unit}" if self.unit else values

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready dict; fields that do not apply to the kind are left out."""
        value = self.value.tolist() if isinstance(self.value, np.ndarray) else self.value
        data: dict[str, object] = {"value": value}
        if self.probabilities is None:
            return data | {"unit": self.unit}
        return data | {"label": self.label, "probabilities": [round(float(p), 6) for p in self.probabilities]}


def decode(task: Task, output: FloatArray, form: Outputs) -> list[Prediction]:
    """Turn a task's output into a prediction an image.

    Args:
        task: with its size.
        output: ``(N, size)``.
        form: ``decoded`` where the graph ends in probabilities and scaled values, ``logits`` where it does not.
    """
    if task.kind == "regression":
        values = output if form == "decoded" else output * np.float32(task.scale) + np.float32(task.offset)
        return [_regression(task, row) for row in values]
    probabilities = _probabilities(output, form)
    binary = task.kind == "binary"
    classes = (probabilities[:, 1] >= task.threshold).astype(int) if binary else probabilities.argmax(axis=1)
    return [
        Prediction(task.name, task.kind, int(index), task.labels[index] if task.labels else str(index), row)
        for index, row in zip(classes, probabilities, strict=True)
    ]


def _regression(task: Task, row: FloatArray) -> Prediction:
    value = float(row[0]) if len(row) == 1 else row
    return Prediction(task.name, task.kind, value, unit=task.unit)


def _probabilities(output: FloatArray, form: Outputs) -> FloatArray:
    """Return ``(N, classes)``; a single value a sample is the positive class's."""
    if output.shape[1] == 1:
        positive = output if form == "decoded" else _sigmoid(output)
        return np.concatenate([1 - positive, positive], axis=1)
    return output if form == "decoded" else _softmax(output)


def _sigmoid(logits: FloatArray) -> FloatArray:
    small = np.exp(-np.abs(logits))  # never overflows
    result: FloatArray = np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    return result


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return result
