"""Several labels, each of which holds or not, judged by mean accuracy and mean average precision.

Source: the accuracy of each attribute, averaged, is what Liu et al. report (Deep Learning Face Attributes in the Wild, ICCV 2015,
CelebA). Average precision is scikit-learn's, https://scikit-learn.org/stable/modules/model_evaluation.html.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.kinds.base import CalibrationKind, Floats, Labels, Metric, Outputs, Usual
from mtl_deploy.calibration.kinds.cells import BETWEEN, EMPTY, UNKNOWN, known, number, require_numbers, texts
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.kinds.multilabel.kind import label_probabilities, labels_of, thresholds

_WORDS = {"true": 1, "yes": 1, "false": 0, "no": 0}
_ABSENT = -2
"""Stands for -1 in a cell until it is known whether the file means "does not hold" or "not known" by it."""
_SHOWN = 5  # labels that a warning names


class Multilabel(CalibrationKind):
    """A label of an image is ``(labels,) int64``: 1 where it holds, 0 where not, -1 where that is not known."""

    metrics = {
        "mean_accuracy": Metric("mean accuracy"),
        "mean_ap": Metric("mAP"),
    }
    least = 0.1

    @property
    def unknown(self) -> int:
        return UNKNOWN

    def unit(self, task: Task) -> str | None:
        return None

    def column_forms(self, task: Task) -> tuple[tuple[str, ...], ...]:
        names = task.labels or tuple(map(str, range(labels_of(task))))
        named = tuple(f"{task.name}.{name}" for name in names)
        return (named, task.labels, (task.name,)) if task.labels else (named, (task.name,))

    def parse(self, task: Task, cells: Sequence[str], *, comma: bool = False) -> tuple[Labels, dict[int, str]]:
        width = max(labels_of(task), 1)
        problems: dict[int, str] = {}
        found = np.full((len(cells), width), UNKNOWN, np.int64)
        for place, cell in enumerate(cells):
            parts = cell.split(BETWEEN) if BETWEEN in cell else cell.split()
            if not parts or (len(parts) == 1 and parts[0].lower() in EMPTY):
                continue
            if len(parts) != width:
                problems[place] = f"{task.name} {cell!r} is not {width} numbers, one per label"
                continue
            for at, part in enumerate(parts):
                if (holds := _holds(part, comma=comma)) is None:
                    name = task.labels[at] if task.labels else str(at)
                    problems[place] = f"{task.name} {name} {part!r} is neither 0 nor 1"
                    found[place] = UNKNOWN
                    break
                found[place, at] = holds
        return _settled(found), problems

    def from_array(self, task: Task, array: Labels, where: str) -> Labels:
        width = max(labels_of(task), 1)
        if array.dtype.kind == "U" and array.ndim == 1:
            values, problems = self.parse(task, texts(array))
            if problems:
                raise ImageError(f"{where}: {next(iter(problems.values()))}")
            return values
        if array.ndim == 1 and width == 1:
            array = array[:, None]
        if array.shape[1:] != (width,):
            raise ImageError(f"{where}: shape {array.shape}; expected (N, {width}), one column per label")
        require_numbers(array, where, or_text=False)
        numbers = array.astype(np.float64)
        unknown = np.isnan(numbers)
        if not np.isin(numbers[~unknown], (-1, 0, 1)).all():
            raise ImageError(f"{where}: holds values other than 0, 1 and -1")
        found = np.where(unknown, UNKNOWN, np.where(numbers == -1, _ABSENT, np.nan_to_num(numbers)))
        return _settled(found.astype(np.int64))

    def label_warnings(self, task: Task, labels: Labels) -> list[str]:
        lacking = [
            (word, [task.labels[i] if task.labels else str(i) for i in np.flatnonzero(~(labels == value).any(axis=0))])
            for word, value in (("with", 1), ("without", 0))
        ]
        return [
            f"{task.name}: no image {word} {len(names)} of {labels.shape[1]} labels "
            f"({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
            for word, names in lacking
            if names
        ]

    # ---- answers

    def values(self, task: Task, outputs: Outputs, decoded: bool) -> Floats:
        """Return probabilities."""
        return label_probabilities(task, outputs.astype(np.float32), "decoded" if decoded else "logits").astype(
            np.float64
        )

    def answers(self, task: Task, outputs: Outputs, decoded: bool) -> npt.NDArray[np.int64]:
        """Return ``(N, labels)``: 1 or 0 as the runtime would say, -1 where an output is NaN."""
        shares = self.values(task, outputs, decoded)
        with np.errstate(invalid="ignore"):
            holds = shares >= thresholds(task, shares.shape[1]).astype(np.float64)
        return np.where(np.isnan(shares), UNKNOWN, holds.astype(np.int64))

    def per_image(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Floats:
        """Return the share of an image's known labels that are answered rightly."""
        right = (self.answers(task, outputs, decoded) == labels) & (labels != UNKNOWN)
        return _mean_of_known(right, labels)

    def figures(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> dict[str, float]:
        shares = self.values(task, outputs, decoded)
        precisions = [
            average_precision(shares[there, i], labels[there, i] == 1)
            for i, there in enumerate((labels != UNKNOWN).T)
            if (labels[:, i] == 1).any()
        ]
        accuracy = {"mean_accuracy": float(self.per_image(task, outputs, labels, decoded).mean())}
        return accuracy | ({"mean_ap": float(np.mean(precisions))} if precisions else {})

    def agreement(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> float:
        return float(1 - self.changes(task, found, expected, decoded).mean())

    def changes(self, task: Task, found: Outputs, expected: Outputs, decoded: bool) -> Floats:
        """Return the share of each image's labels whose answer is another one."""
        ours, theirs = (self.answers(task, each, decoded) for each in (found, expected))
        return np.asarray(((ours != theirs) | (ours < 0)).mean(axis=1), np.float64)

    def usual(self, task: Task, outputs: Outputs, labels: Labels, decoded: bool) -> Usual | None:
        counts = [(labels == value).sum(axis=0) for value in (0, 1)]
        if not np.logical_and(counts[0], counts[1]).any():
            return None
        most = np.argmax(counts, axis=0)
        right = (labels == most) & (labels != UNKNOWN)
        found = _mean_of_known(right, labels)
        held = [task.labels[i] if task.labels else str(i) for i in np.flatnonzero(most)]
        answer = f"always answering {', '.join(held[:_SHOWN]) or 'no label'}{', ...' if len(held) > _SHOWN else ''}"
        return Usual(answer, found, float(1 - found.mean()), "mean accuracy", " points")


def average_precision(scores: Floats, truth: npt.NDArray[np.bool_]) -> float:
    """Return the sum of precisions at each score, weighted by the gain in recall; equal scores count as one.

    Args:
        scores: ``(N,)``; NaN counts as the least.
        truth: ``(N,)``; at least one is true.
    """
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-ranked, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.flatnonzero(np.append(np.diff(ranked[order]) != 0, True))  # of each group of equal scores
    recalls = np.diff(hits[last], prepend=0) / hits[-1]
    return float((recalls * hits[last] / (last + 1)).sum())


def _mean_of_known(right: npt.NDArray[np.bool_], labels: Labels) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = right.sum(axis=1) / (labels != UNKNOWN).sum(axis=1)
    return np.where(known(labels), shares, np.nan)


def _holds(cell: str, *, comma: bool) -> int | None:
    """Return 1, 0, unknown or :data:`_ABSENT`; None if a cell is none of them."""
    if cell.lower() in EMPTY:
        return UNKNOWN
    if (word := _WORDS.get(cell.lower())) is not None:
        return word
    try:
        found = number(cell, comma=comma)
    except ValueError:
        return None
    return {1.0: 1, 0.0: 0, -1.0: _ABSENT}.get(found)


def _settled(labels: Labels) -> Labels:
    """Say what -1 means: where no label is 0, it is what others write as 0 (as CelebA does); otherwise a label is not known."""
    return np.where(labels == _ABSENT, UNKNOWN if (labels == 0).any() else 0, labels)


KIND = Multilabel()
