"""What each precision costs each task: its metric, how far it drops, and how certain that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.kinds.base import Labels, Outputs
from mtl_deploy.calibration.kinds.cells import known
from mtl_deploy.calibration.kinds.registry import kind_of, metric_of
from mtl_deploy.runtime.bundle.schema import ACCURACY
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.console.nouns import noun
from mtl_deploy.runtime.errors import BundleError, TaskError
from mtl_deploy.runtime.files.json_schema import check
from mtl_deploy.runtime.files.reading import DocumentError

from .bootstrap import paired_interval
from .metrics import is_share, metrics, name_of, per_sample


@dataclass(frozen=True)
class Cell:
    """One task at one precision.

    Attributes:
        task: the task's name.
        variant: name of the precision, for example ``int8``.
        samples: number of images with a label; without labels, of all images.
        metrics: see :func:`~mtl_deploy.calibration.accuracy.metrics.metrics`; empty without labels.
        drop: how much worse the main metric is than the first variant's, in its own unit (a share for accuracy and mean IoU);
            negative: better; None without labels.
        drop_low: lower end of the drop's 95 % confidence interval; for the first variant both ends are 0.
        drop_high: upper end.
        agreement: share of all images (of a segmentation: of all pixels; of a multilabel task: of all labels) with the same answer
            as the first variant; None for values.
        mean_error: mean absolute difference from the first variant's outputs: of a regression or depth in its unit, of a raw tensor
            as a share of its spread, of normals in degrees, of a segmentation the share of pixels whose class differs.
        max_error: the largest difference; of a segmentation the largest of any image.
        unit: of a regression, depth or normals; ``of its spread`` of a raw tensor; None if it has none.
    """

    task: str
    variant: str
    samples: int
    metrics: dict[str, float]
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    agreement: float | None
    mean_error: float
    max_error: float
    unit: str | None = None


@dataclass(frozen=True)
class AccuracyMatrix:
    """Every task at every precision.

    Attributes:
        cells: grouped by task; the first one of a task is the reference.
        labelled: whether at least one task has labels.
    """

    cells: tuple[Cell, ...]
    labelled: bool

    def cell(self, task: str, variant: str) -> Cell:
        """Return a task's cell at a precision.

        Raises:
            TaskError: there is none.
        """
        for cell in self.cells:
            if (cell.task, cell.variant) == (task, variant):
                return cell
        raise TaskError(f"the accuracy of task {task!r} at {variant!r} was not measured")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict; numbers that are not finite become the text ``inf`` or ``nan``, as JSON has no such numbers."""
        return {"labelled": self.labelled, "cells": [json_ready(asdict(cell)) for cell in self.cells]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "accuracy") -> AccuracyMatrix:
        """Read :meth:`to_dict`'s result back.

        Raises:
            BundleError: it is malformed.
        """
        try:
            check(dict(data), ACCURACY)
            for position, cell in enumerate(data["cells"]):
                if len({cell[name] is None for name in ("drop", "drop_low", "drop_high")}) > 1:
                    raise DocumentError(
                        f"cells[{position}]: a drop without its interval, or an interval without its drop"
                    )
            cells = tuple(
                Cell(
                    **cell
                    | {"metrics": {name: float(value) for name, value in cell["metrics"].items()}}
                    | {name: None if cell[name] is None else float(cell[name]) for name in _NUMBERS}
                )
                for cell in data["cells"]
            )
            return cls(cells, bool(data["labelled"]))
        except DocumentError as error:
            raise BundleError(f"{where}: malformed record of accuracy: {error}; calibrate again") from error
        except (KeyError, TypeError) as error:  # fields that are missing, or that this release does not know
            raise BundleError(
                f"{where}: malformed record of accuracy ({type(error).__name__}: {error}); calibrate again"
            ) from error

    def text(self) -> str:
        """Return a table with one row per metric and one column per precision, and one with the drop of each main metric."""
        if not self.cells:
            return "no task was measured"
        variants = list(dict.fromkeys(cell.variant for cell in self.cells))
        rows: list[list[str]] = []
        lost: list[list[str]] = []
        for name in dict.fromkeys(cell.task for cell in self.cells):
            cells = {cell.variant: cell for cell in self.cells if cell.task == name}
            for label, shown in _rows(list(cells.values()), variants[0]):
                rows.append([name, label, *(shown.get(variant, "n/a") for variant in variants)])
            drops = {variant: _drop(cell) for variant, cell in cells.items() if cell.drop is not None}
            if drops:
                unit = _unit(next(iter(cells.values())))
                lost.append([name, unit, *(drops.get(variant, "n/a") for variant in variants[1:])])
        counts = sorted({cell.samples for cell in self.cells})
        images = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        text = f"{images} {noun(counts[-1], 'image')}\n{table(['task', 'metric', *variants], rows)}"
        if lost and len(variants) > 1:
            text += f"\n\nloss against {variants[0]}, with its 95 % confidence interval (negative: a gain)\n"
            text += table(["task", "unit", *variants[1:]], lost)
        return text


_NUMBERS = ("drop", "drop_low", "drop_high", "agreement", "mean_error", "max_error")


def compare(
    outputs: Mapping[str, Mapping[str, Outputs]],
    data: CalibrationData,
    tasks: Sequence[Task],
    decoded: bool,
    seed: int = 0,
) -> AccuracyMatrix:
    """Compare the outputs of several precisions for the same images.

    Args:
        outputs: by variant and task, ``(N, size)``; the first variant is the reference that the others are compared with.
        data: the images, which were not used for calibration, with their labels.
        tasks: the network's; a task that a variant lacks gets no cell there.
        decoded: whether the graphs give probabilities and scaled values; False: they give logits.
        seed: for the bootstrap.

    Raises:
        ValueError: a variant has not one output per image.
    """
    reference = next(iter(outputs))
    cells = []
    for task in tasks:
        for variant, by_task in outputs.items():
            if task.name not in by_task or task.name not in outputs[reference]:
                continue
            found, expected = by_task[task.name], outputs[reference][task.name]
            if found.shape != expected.shape or len(found) != len(data.images):
                raise ValueError(
                    f"{variant}, task {task.name!r}: outputs of shape {found.shape}, {reference} has {expected.shape}, for "
                    f"{len(data.images)} images"
                )
            cells.append(_cell(task, variant, found, expected, data, decoded, seed))
    return AccuracyMatrix(tuple(cells), data.labelled)


def _cell(
    task: Task, variant: str, found: Outputs, expected: Outputs, data: CalibrationData, decoded: bool, seed: int
) -> Cell:
    labels, kind = data.labels.get(task.name), kind_of(task)
    measured: dict[str, float] = {}
    drop = low = high = None
    if labels is not None and known(labels).any():
        measured = metrics(task, found, labels, decoded)
        losses = [image_losses(task, each, expected, labels, decoded) for each in (found, expected)]
        drop, low, high = 0.0, 0.0, 0.0
        if found is not expected:
            drop, low, high = paired_interval(losses[0], losses[1], shares=kind.right_or_wrong, seed=seed)
    differences = kind.differences_on(task, found, expected, labels, decoded)
    differences = np.where(np.isnan(differences), np.inf, differences)
    return Cell(
        task=task.name,
        variant=variant,
        samples=len(found) if labels is None else int(known(labels).sum()),
        metrics=measured,
        drop=drop,
        drop_low=low,
        drop_high=high,
        agreement=kind.agreement(task, found, expected, decoded),
        mean_error=float(differences.mean()),
        max_error=float(differences.max()),
        unit=kind.unit_of_differences(task, labels),
    )


def image_losses(
    task: Task, found: Outputs, expected: Outputs, labels: Labels | None, decoded: bool
) -> npt.NDArray[np.float64]:
    """Return a network's loss on each image.

    Args:
        task: a vector task.
        found: ``(N, size)``, the network's outputs.
        expected: ``(N, size)``, the outputs of the network that it is compared with if there are no labels.
        labels: ``(N,)``; None: there are none.
        decoded: see :func:`compare`.

    Returns:
        with labels, for each labelled image the figure that the main metric is the mean of, with its sign chosen so that larger is
        worse; without, 1.0 where the class is not the expected one, or the mean distance of the values in their unit.
    """
    if labels is not None and known(labels).any():
        return kind_of(task).loss(per_sample(task, found, labels, decoded)[known(labels)])
    return kind_of(task).changes(task, found, expected, decoded)


def json_ready(value: Any) -> Any:
    """Return a value in which numbers that are not finite, at any depth of dicts, are replaced by the text ``inf`` or ``nan``."""
    if isinstance(value, dict):
        return {name: json_ready(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _unit(cell: Cell) -> str:
    if _of_shares(cell):
        return "points"
    return cell.unit or "" if not cell.metrics or metric_of(next(iter(cell.metrics))).has_unit else ""


def _of_shares(cell: Cell) -> bool:
    """Return whether the main metric is a share."""
    return is_share(next(iter(cell.metrics))) if cell.metrics else cell.agreement is not None


def _rows(cells: Sequence[Cell], reference: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a task's rows: the name of the figure, and the figure by variant."""
    classes = cells[0].agreement is not None
    unit = f", {cells[0].unit}" if cells[0].unit else ""
    for key in cells[0].metrics:
        share = is_share(key)
        shown = {cell.variant: _shown(cell.metrics[key], share) for cell in cells if key in cell.metrics}
        yield f"{name_of(key)}{', %' if share else unit if metric_of(key).has_unit else ''}", shown
    blank = {reference: ""}
    others = [cell for cell in cells if cell.variant != reference]
    if not others:
        return
    if classes:
        same = {cell.variant: _shown(cell.agreement or 0.0, True) for cell in others}
        yield f"same answer as {reference}, %", blank | same
        return
    yield f"mean difference from {reference}{unit}", blank | {each.variant: f"{each.mean_error:.3g}" for each in others}
    yield (
        f"largest difference from {reference}{unit}",
        blank | {each.variant: f"{each.max_error:.3g}" for each in others},
    )


def _shown(value: float, share: bool) -> str:
    return f"{100 * value:.2f}" if share else f"{value:.4g}"


def _drop(cell: Cell) -> str:
    assert cell.drop is not None and cell.drop_low is not None and cell.drop_high is not None  # noqa: PT018
    numbers = (cell.drop, cell.drop_low, cell.drop_high)
    if _of_shares(cell):
        drop, low, high = (f"{100 * number:+.2f}" for number in numbers)
    else:
        drop, low, high = (f"{number:+.3g}" for number in numbers)
    return f"{drop} ({low} to {high})"
