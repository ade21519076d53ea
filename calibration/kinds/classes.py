"""What kinds share that choose one class for each image: accuracy.

Source: scikit-learn's definitions, https://scikit-learn.org/stable/modules/model_evaluation.html. ``balanced_accuracy`` is the mean
recall over the classes that occur among the labels; ``f1`` is that of the positive class if there are two classes, else the mean
over the classes that occur among labels or answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.predictions.decoding import decode

from .base import CalibrationKind, Floats, Labels, Metric, Outputs, Usual
from .cells import UNKNOWN, class_array, class_labels, known, one_per_image, require_numbers, texts


class ClassKind(CalibrationKind):
    """One class for each image; a label is a class by its name or its index."""

    metrics = {
        "accuracy": Metric("accuracy"),
        "balanced_accuracy": Metric("balanced accuracy"),
        "f1": Metric("F1"),
    }
    chooses = True
    right_or_wrong = True

    @property
    def unknown(self) -> int:
        return UNKNOWN

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        return class_labels(task, cells, self.classes(task), comma=comma)

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        array = one_per_image(array, None, where)
        if array.dtype.kind == "U":
            values, problems = self.parse(task, texts(array))
            if problems:
                raise ImageError(f"{where}: {next(iter(problems.values()))}")
            return values
        require_numbers(array, where, or_text=True)
        return class_array(array, self.classes(task), where)

    def choices(self, task: Task, outputs: Outputs, decoded: bool) -> npt.NDArray[np.int64]:
        with np.errstate(invalid="ignore", over="ignore"):
            answers = [prediction.value for prediction in decode(task, outputs, "decoded" if decoded else "logits")]
        return np.where(np.isnan(outputs).any(axis=1), UNKNOWN, np.array(answers, np.int64))

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        return np.where(known(labels), self.choices(task, outputs, decoded) == labels, np.nan)

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        answers = self.choices(task, outputs, decoded)
        right = answers == labels
        recalls = [right[labels == name].mean() for name in np.unique(labels)]
        two = self.classes(task) == 2 or task.size == 2
        scores = []
        for name in [1] if two else np.union1d(labels, answers[answers != UNKNOWN]):
            both = (labels == name).sum() + (answers == name).sum()
            scores.append(2 * (right & (labels == name)).sum() / both if both else 0.0)
        return {
            "accuracy": float(right.mean()),
            "balanced_accuracy": float(np.mean(recalls)),
            "f1": float(np.mean(scores)),
        }

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        numbers, counts = np.unique(labels, return_counts=True)
        if len(numbers) < 2:
            return None
        most = numbers[counts.argmax()]
        right = self.choices(task, outputs, decoded) == labels
        recalls = [float(right[labels == number].mean()) for number in numbers]
        balanced = f"; balanced accuracy {100 * np.mean(recalls):.1f} %, by chance {100 / len(numbers):.1f} %"
        usual = (labels == most).astype(np.float64)
        answer = f"always answering {class_named(task, most)}"
        return Usual(answer, usual, 1 - usual.mean(), "accuracy", " points", balanced)


def class_named(task: Task, number: float) -> str:
    """Return how people call a class."""
    return f"'{task.labels[int(number)]}'" if task.labels else f"class {int(number)}"
