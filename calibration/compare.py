"""``mtl-calibrate compare``: two bundles, such as two training runs, compared task by task on the same labelled images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.calibration.accuracy.doubts import doubts
from mtl_deploy.calibration.accuracy.evaluate import Evaluation, evaluate
from mtl_deploy.calibration.accuracy.matrix import json_ready
from mtl_deploy.calibration.accuracy.metrics import is_share, lower_is_better, main_metric, name_of
from mtl_deploy.calibration.accuracy.variants import only_batch, runnable, shared_graphs
from mtl_deploy.calibration.data.dataset import CalibrationData, load_data
from mtl_deploy.calibration.kinds.registry import kind_of, metric_of
from mtl_deploy.runtime.bundle.manifest import Bundle, open_bundle
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.command import Progress, table
from mtl_deploy.runtime.errors import OptionError

_PREFERRED = ("fp32", "fp16", "int8-cpu", "int8")


@dataclass(frozen=True)
class Difference:
    """One task, measured in two bundles.

    Attributes:
        task: its name.
        metric: key of the main metric.
        unit: of the metric; None for a share.
        images: number of images that both answered for and whose truth is known.
        first: all metrics of the first bundle.
        second: all metrics of the second bundle.
        difference: in the main metric, second minus first.
        low: lower end of its 95 % interval.
        high: upper end.
        better: ``first`` or ``second`` where the interval excludes 0; otherwise None.
    """

    task: str
    metric: str
    unit: str | None
    images: int
    first: dict[str, float]
    second: dict[str, float]
    difference: float
    low: float
    high: float
    better: str | None


@dataclass(frozen=True)
class BundleComparison:
    """What a comparison of two bundles found.

    Attributes:
        bundles: their paths.
        precisions: which precision of each was run.
        source: where the images come from, for people.
        differences: one per task whose truth is known.
        conditions: preprocessing that differs, by name: the first bundle's value and the second's.
        warnings: what makes the comparison weak.
    """

    bundles: tuple[str, str]
    precisions: tuple[str, str]
    source: str
    differences: tuple[Difference, ...]
    conditions: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...]

    def text(self) -> str:
        """Return the report for people."""
        rows = [row for found in self.differences for row in _rows(found)]
        named = zip(("first", "second"), self.bundles, self.precisions, strict=True)
        lines = [
            *(f"{word}: {bundle}, {precision}" for word, bundle, precision in named),
            f"on {self.source}",
            *(f"warning: {text}" for text in self.warnings),
            "",
            table(["task", "metric", "images", "first", "second", "difference", "95 % interval", "better"], rows),
        ]
        if self.conditions:
            cells = [[name, *values] for name, values in self.conditions.items()]
            lines += ["", table(["not the same", "first", "second"], cells)]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the report for programs, ready for JSON."""
        return {
            "bundles": list(self.bundles),
            "precisions": list(self.precisions),
            "data": self.source,
            "tasks": [json_ready(asdict(found)) for found in self.differences],
            "conditions": {name: {"first": one, "second": other} for name, (one, other) in self.conditions.items()},
            "warnings": list(self.warnings),
        }


def compare_bundles(
    paths: tuple[Path, Path],
    images: Path,
    *,
    labels: Path | None = None,
    precisions: tuple[str, str] | None = None,
    samples: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress,
) -> BundleComparison:
    """Compare two bundles with the same tasks; each prepares the images in its own way.

    Args:
        paths: the two bundles.
        images: see :func:`~mtl_deploy.calibration.data.dataset.load_data`.
        labels: likewise.
        precisions: which precision of each to run; None: the highest that both have.
        samples: largest number of images to use; None: all.
        seed: for drawing images and for the intervals.
        threads: of ONNX Runtime; None: one per core.
        progress: shows the steps.

    Raises:
        OptionError: the tasks differ, no truth is known, or a bundle lacks the precision.
        MtlError: a bundle or the images cannot be used.
    """
    first, second = (open_bundle(path) for path in paths)
    if differing := task_differences(first.manifest.tasks, second.manifest.tasks):
        raise OptionError(
            f"{first.path} and {second.path} do not have the same tasks: {'; '.join(differing)}. Compare bundles with the same "
            "tasks, kinds, labels and units"
        )
    chosen = precisions or _common(first, second)
    how = _How(images, labels, samples, seed, threads)
    one, data, said = _answered("first", first, chosen[0], how, progress)
    other, others, also_said = _answered("second", second, chosen[1], how, progress)
    _require_same(data, others, first.manifest.tasks)
    differences = [
        _difference(task, one, other, chosen, seed)
        for task in first.manifest.tasks
        if one.losses[chosen[0], task.name].labelled and other.losses[chosen[1], task.name].labelled
    ]
    if not differences:
        raise OptionError(
            f"{images}: the truth of no task is known, so neither bundle can be called better; give --labels, an .npz file with "
            "labels/TASK, or a UTKFace folder"
        )
    return BundleComparison(
        (str(first.path), str(second.path)),
        chosen,
        data.source,
        tuple(differences),
        _conditions(first, second),
        (*data.warnings, *said, *also_said),
    )


@dataclass(frozen=True)
class _How:
    """How both bundles are measured: arguments of :func:`compare_bundles`."""

    images: Path
    labels: Path | None
    samples: int | None
    seed: int
    threads: int | None


def _answered(
    word: str, bundle: Bundle, precision: str, how: _How, progress: Progress
) -> tuple[Evaluation, CalibrationData, list[str]]:
    """Run one bundle on the images; return its results, the images as it reads them, and doubts about its tasks."""
    graph = runnable(bundle, precision)
    signature = bundle.manifest.signature
    with progress.step(f"Reading {how.images} for {bundle.path}"):
        data = load_data(
            how.images, signature.preprocessing, signature.tasks, samples=how.samples, seed=how.seed, labels=how.labels
        )
    with progress.step(f"Running {bundle.path}, {precision}"):
        batch = only_batch(bundle, precision)
        found = evaluate({precision: graph}, data, signature, batch=batch, threads=how.threads, seed=how.seed)
    said = doubts(found, data, precision, decoded=signature.outputs == "decoded", seed=how.seed)
    return found, data, [f"{word}: {text}" for text in said]


def task_differences(first: Sequence[Task], second: Sequence[Task]) -> list[str]:
    """Return why the tasks of two networks cannot be compared, one phrase per reason; the order of tasks does not matter."""
    found = []
    for word, ours, theirs in (("first", first, second), ("second", second, first)):
        names = {task.name for task in theirs}
        found += [f"only the {word} has task {task.name!r}" for task in ours if task.name not in names]
    by_name = {task.name: task for task in second}
    for task in first:
        if (other := by_name.get(task.name)) is None:
            continue
        for what in ("kind", "labels", "unit"):
            one, two = getattr(task, what), getattr(other, what)
            if one != two:
                found.append(f"task {task.name!r} has {_differing(what, one, two)}")
        if (task.kind, task.labels) == (other.kind, other.labels) and (said := kind_of(task).mismatch(task, other)):
            found.append(f"task {task.name!r} has {said}")
    return found


def _differing(what: str, one: Any, two: Any) -> str:
    if what != "labels":
        return f"{what} {one or 'none'} and {two or 'none'}"
    pairs = enumerate(itertools.zip_longest(one, two))
    position, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
    left, right = (repr(label) if label is not None else "none" for label in (a, b))
    return f"different labels: class {position} is {left} in the first and {right} in the second"


def _common(first: Bundle, second: Bundle) -> tuple[str, str]:
    held = [set(shared_graphs(bundle)) for bundle in (first, second)]
    for precision in _PREFERRED:
        if precision in held[0] & held[1]:
            return precision, precision
    raise OptionError(
        f"{first.path} has {', '.join(sorted(held[0]))}, {second.path} has {', '.join(sorted(held[1]))}: no precision in common; "
        "choose one of each with --precision FIRST,SECOND"
    )


def _require_same(data: CalibrationData, others: CalibrationData, tasks: Sequence[Task]) -> None:
    """Refuse to compare where the two bundles did not read the same images."""
    same = len(data) == len(others) and set(data.skipped) == set(others.skipped)
    kinds = {task.name: (task, kind_of(task)) for task in tasks}
    for name, labels in data.labels.items():
        task, kind = kinds[name]
        one, other = (kind.comparable(task, each) for each in (labels, others.labels[name]))
        same = same and np.array_equal(one, other, equal_nan=True)
    if not same:
        alone = sorted(set(data.skipped) ^ set(others.skipped))
        named = f"; only one bundle could use {', '.join(alone[:3])}: remove these files" if alone else ""
        raise OptionError(
            f"{data.source} for the first bundle, {others.source} for the second: not the same images{named}"
        )


def _difference(task: Task, one: Evaluation, other: Evaluation, precisions: tuple[str, str], seed: int) -> Difference:
    first, second = (each.losses[name, task.name] for each, name in zip((one, other), precisions, strict=True))
    both = np.intersect1d(first.positions, second.positions)
    sample = second.of(both).against(first.of(both), seed)
    metric = main_metric(task)
    ends = (sample.drop, *sample.interval)
    if not lower_is_better(metric):
        ends = (-ends[0], -ends[2], -ends[1])
    better = "first" if sample.interval[0] > 0 else "second" if sample.interval[1] < 0 else None
    cells = [each.matrix.cell(task.name, name) for each, name in zip((one, other), precisions, strict=True)]
    return Difference(
        task.name,
        metric,
        None if is_share(metric) else cells[0].unit,
        len(both),
        cells[0].metrics,
        cells[1].metrics,
        *ends,
        better,
    )


def _rows(found: Difference) -> list[list[str]]:
    """Return the row of the main metric with its interval, then those of the other metrics."""
    rows = []
    for key in sorted(found.first, key=lambda key: key != found.metric):
        share = is_share(key)
        scale = 100.0 if share else 1.0
        unit = ", %" if share else f", {found.unit}" if found.unit and metric_of(key).has_unit else ""
        first, second = (_number(scale * each[key], share) for each in (found.first, found.second))
        row = [found.task, f"{name_of(key)}{unit}", str(found.images), first, second]
        if key == found.metric:
            difference, low, high = (
                f"{scale * value + 0.0:+.3g}" for value in (found.difference, found.low, found.high)
            )
            rows.append([*row, difference, f"{low} to {high}", found.better or "not shown"])
        else:
            rows.append([*row, f"{scale * (found.second[key] - found.first[key]) + 0.0:+.3g}", "", ""])
    return rows


def _number(value: float, share: bool) -> str:
    return f"{value:.2f}" if share else f"{value:.4g}"


def _conditions(first: Bundle, second: Bundle) -> dict[str, tuple[str, str]]:
    one, other = (asdict(bundle.manifest.signature.preprocessing) for bundle in (first, second))
    return {name: (_shown(one[name]), _shown(other[name])) for name in one if one[name] != other[name]}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(f"{each:g}" for each in value) if isinstance(value, (tuple, list)) else str(value)
