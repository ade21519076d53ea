"""Predictions as rows of a table with the same columns for every image: for CSV and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.predictions.decoding import Prediction, json_number, kind_of

from .predicting import Outcome

NUMBER, TEXT = "number", "text"
_SIDES = ("x", "y", "width", "height")


class Rows:
    """Turns outcomes into rows.

    A task that chooses a class has a column with its label and one with its probability; one with a single number in a unit has a
    column of numbers; any other has JSON.

    Args:
        tasks: the model's.
        boxed: whether boxes were cut out, each of which is a row of its own; an image without any then has none.

    Attributes:
        columns: names with :data:`NUMBER` or :data:`TEXT`, in order.
    """

    def __init__(self, tasks: Sequence[Task], *, boxed: bool) -> None:
        self._tasks = tasks
        self.columns = {"image": TEXT}
        if boxed:
            self.columns |= dict.fromkeys(_SIDES, NUMBER)
        for task in tasks:
            self.columns[task.name] = NUMBER if _is_number(task) else TEXT
            if kind_of(task.kind).one_class:
                self.columns[f"{task.name}_probability"] = NUMBER
        self.columns["error"] = TEXT

    def of(self, outcome: Outcome) -> Iterator[dict[str, Any]]:
        """Yield the rows of an outcome; what is missing is None."""
        empty: dict[str, Any] = dict.fromkeys(self.columns)
        empty["image"] = str(outcome.file).encode("utf-8", "backslashreplace").decode()
        if outcome.error is not None:
            yield empty | {"error": str(outcome.error)}
        elif outcome.cut is None:
            yield empty | self._cells(outcome.predictions)
        else:
            for box, predictions in zip(outcome.cut, outcome.boxes, strict=True):
                yield empty | dict(zip(_SIDES, box, strict=True)) | self._cells(predictions)

    def _cells(self, predictions: Mapping[str, Prediction]) -> dict[str, Any]:
        cells: dict[str, Any] = {}
        for task in self._tasks:
            found = predictions[task.name]
            if kind_of(task.kind).one_class:
                cells[task.name] = found.label
                cells[f"{task.name}_probability"] = found.probability
            elif _is_number(task):
                cells[task.name] = json_number(float(found.value))
            else:
                cells[task.name] = json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False)
        return cells


def _is_number(task: Task) -> bool:
    kind = kind_of(task.kind)
    return kind.averages and not kind.dense and task.size == 1
