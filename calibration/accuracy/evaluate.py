"""Running several precisions on the same images, batch by batch: outputs of vector tasks are kept, of dense ones only sums.

Batches are as small as large maps need it, and a graph's maps are decoded before the next graph runs. So memory does not grow with
the number of images, and with the number of graphs only by decoded maps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.data.images import batches
from mtl_deploy.calibration.data.stored import Images
from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.calibration.graph.sizes import images_at_once
from mtl_deploy.calibration.kinds.cells import known
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.bundle.tasks import Task

from .matrix import AccuracyMatrix, Cell, compare, image_losses
from .paired_losses import Losses
from .row_cells import RowScore
from .row_metrics import row_kind

Array = npt.NDArray[Any]
Answers = Callable[[int, int], Mapping[str, Array]]
"""Outputs that were computed elsewhere: by task, for the images from one position to another."""
Answered = Mapping[str, Any]
"""By task, what a source answers for a batch: rows ``(N, size)``, or a list of answers (maps) of kinds that are judged by rows."""
Source = bytes | Answers
"""A graph of a bundle, which is run on a CPU, or outputs that were computed elsewhere."""

_BATCH = 8


@dataclass(frozen=True)
class Apart:
    """How far a variant's outputs are from the FP32 graph's.

    Attributes:
        mean: mean difference over images (and pixels), in the task's unit; for classes in probabilities, for class maps the share
            of pixels whose class differs.
        largest: largest difference.
        scale: what the mean difference is judged by: the mean error of an answer that does not look at the image. At least
            the kind's ``least`` for probabilities, class maps and normals; for an output that is constant, its magnitude.
        samples: number of images.
    """

    mean: float
    largest: float
    scale: float
    samples: int


@dataclass(frozen=True)
class Evaluation:
    """The results of all variants.

    Attributes:
        matrix: the accuracy of every task at every variant.
        outputs: of vector tasks, by variant and task, ``(N, size)``.
        apart: by variant and task, if there is a variant called ``fp32``.
        losses: by variant and task, one per image.
        constant: pairs of variant and dense task whose pixels all have one value.
    """

    matrix: AccuracyMatrix
    outputs: Mapping[str, Mapping[str, npt.NDArray[np.float32]]]
    apart: Mapping[tuple[str, str], Apart]
    losses: Mapping[tuple[str, str], Losses]
    constant: frozenset[tuple[str, str]] = frozenset()


def evaluate(
    sources: Mapping[str, Source],
    data: CalibrationData,
    signature: Signature,
    *,
    batch: int | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Run each variant on all images, one batch of all variants at a time.

    Args:
        sources: by variant; the first one is the reference that the others are compared with.
        data: the images and their labels.
        signature: of all graphs.
        batch: the only batch size that the graphs accept; None: any.
        threads: of ONNX Runtime; None: one per core.
        seed: for the intervals.
    """
    names = list(sources)
    dense = [task for task in signature.tasks if kind_of(task).by_rows]
    scores = {task.name: RowScore(task, names, data.dense.get(task.name)) for task in dense}
    kept: dict[str, dict[str, list[Array]]] = {name: {} for name in names}
    for start, answers in in_step(sources, data.images, signature, batch=batch, threads=threads):
        for task in signature.tasks:
            if task.name not in scores:
                for name in names:
                    found = kind_of(task).kept(task, np.asarray(answers[name][task.name], np.float32))
                    kept[name].setdefault(task.name, []).append(found)
                continue
            scores[task.name].add(start, {name: answers[name][task.name] for name in names})
    outputs = {name: {task: np.concatenate(parts) for task, parts in by.items()} for name, by in kept.items()}
    vectors = [task for task in signature.tasks if task.name not in scores]
    cells: dict[str, list[Cell]] = {}
    for cell in compare(outputs, data, vectors, signature.outputs == "decoded", seed=seed).cells if vectors else ():
        cells.setdefault(cell.task, []).append(cell)
    cells |= {name: score.cells(seed) for name, score in scores.items()}
    ordered = tuple(cell for task in signature.tasks for cell in cells[task.name])
    losses = {(name, task.name): scores[task.name].losses(name) for name in names for task in dense}
    for task in vectors:
        labels = data.labels.get(task.name)
        labelled = labels is not None and bool(known(labels).any())
        for name in names:
            pair = (outputs[name][task.name], outputs[names[0]][task.name])
            rows = image_losses(task, *pair, labels, signature.outputs == "decoded")
            positions = np.flatnonzero(known(labels)) if labels is not None and labelled else np.arange(len(rows))
            losses[name, task.name] = Losses(task, rows, labelled, positions)
    constant = frozenset((name, task.name) for name in names for task in dense if scores[task.name].constant(name))
    matrix = AccuracyMatrix(ordered, data.labelled)
    return Evaluation(matrix, outputs, _apart(signature, outputs, scores), losses, constant)


def in_step(
    sources: Mapping[str, Source],
    images: Images,
    signature: Signature,
    *,
    batch: int | None = None,
    threads: int | None = None,
) -> Iterator[tuple[int, dict[str, Answered]]]:
    """Yield the position of each batch and its answers by variant and task; the arguments are those of :func:`evaluate`."""
    graphs = [source for source in sources.values() if isinstance(source, bytes)]
    size = batch or images_at_once(graphs[0] if graphs else None, signature, _BATCH)
    tasks = [task.name for task in signature.tasks]
    with ExitStack() as stack:
        backends = {
            name: stack.enter_context(closing(FrugalBackend(source, threads=threads)))
            for name, source in sources.items()
            if isinstance(source, bytes)
        }
        for position, piece in enumerate(batches(images, signature.preprocessing, size, least=batch or 1)):
            start = position * size
            stop = min(start + size, len(images))
            found: dict[str, Answered] = {}
            for name, source in sources.items():
                if isinstance(source, bytes):
                    outputs = backends[name].run({INPUT_NAME: piece}, tasks)
                    found[name] = _answered({task: array[: stop - start] for task, array in outputs.items()}, signature)
                    del outputs
                else:
                    found[name] = _answered(source(start, stop), signature)
            yield start, found


def _answered(outputs: Mapping[str, Array], signature: Signature) -> Answered:
    """Decode maps, so that logits of all classes are not kept."""
    return {
        task.name: pictures_of(task, outputs[task.name], signature) if kind_of(task).by_rows else outputs[task.name]
        for task in signature.tasks
    }


def pictures_of(task: Task, output: Array, signature: Signature) -> list[Any]:
    """Return a dense task's decoded maps at the input's size: class indices, depth in its unit, unit normals ``(H, W, 3)``.

    Likewise what other kinds have that are judged by rows.
    """
    return row_kind(task).answers(task, output, signature)


def relative_errors(
    reference: bytes,
    others: Mapping[str, bytes],
    images: Images,
    signature: Signature,
    *,
    batch: int | None = None,
    threads: int | None = None,
) -> dict[str, float]:
    """Return by graph the error of its worst task, relative to the spread of the task's values: what ``auto`` minimizes.

    For a vector task it is the mean error over the mean deviation; for a class map the share of pixels that differ over the share
    that would differ by chance; for depth and normals the root mean squared error over the standard deviation.
    """
    found = corrected_errors(reference, others, images, signature, {}, batch=batch, threads=threads)
    return {name: one.error for name, one in found.items()}


@dataclass(frozen=True)
class Corrected:
    """How far a graph is from the reference once the mean error of some outputs is taken out.

    Attributes:
        error: as :func:`relative_errors` gives it.
        shifts: by task ``(size,)``: the mean difference of the reference's output from the graph's.
    """

    error: float
    shifts: Mapping[str, npt.NDArray[np.float64]]


def corrected_errors(
    reference: bytes,
    others: Mapping[str, bytes],
    images: Images,
    signature: Signature,
    correct: Mapping[str, Collection[str]],
    *,
    batch: int | None = None,
    threads: int | None = None,
) -> dict[str, Corrected]:
    """As :func:`relative_errors`, for graphs whose outputs are still to be shifted by the mean of their error on these images.

    So each graph is run once, to find what to shift it by and how good it is then.

    Args:
        reference: the graph to compare with.
        others: the graphs.
        images: ``(N, H, W, C) uint8``.
        signature: of all graphs.
        correct: by graph, the tasks whose outputs are shifted; their kinds have rows ``(N, size)``. An output that is not finite is
            left as it is.
        batch: the only batch size that the graphs accept; None: any.
        threads: of ONNX Runtime; None: one per core.
    """
    sums: dict[str, dict[str, list[npt.NDArray[np.float64]]]] = {name: {} for name in others}
    pairs: dict[tuple[str, str], list[tuple[Array, Array]]] = {}
    for _, answers in in_step({"": reference, **others}, images, signature, batch=batch, threads=threads):
        for task in signature.tasks:
            for name in others:
                expected, given = answers[""][task.name], answers[name][task.name]
                if task.name in correct.get(name, ()):
                    pairs.setdefault((name, task.name), []).append((np.asarray(expected), np.asarray(given)))
                else:
                    rows = kind_of(task).spread_rows(task, expected, given)
                    sums[name].setdefault(task.name, []).append(rows)
    shifts: dict[str, dict[str, npt.NDArray[np.float64]]] = {name: {} for name in others}
    by_name = {task.name: task for task in signature.tasks}
    for (name, called), both in pairs.items():
        expected, given = (np.concatenate(part).astype(np.float64) for part in zip(*both, strict=True))
        if np.isfinite(given).all():
            shifts[name][called] = np.mean(expected - given, axis=0)
            given = given + shifts[name][called]
        sums[name][called] = [kind_of(by_name[called]).spread_rows(by_name[called], expected, given)]
    found = {}
    for name, by in sums.items():
        errors = [kind_of(task).relative(task, np.concatenate(by[task.name])) for task in signature.tasks]
        found[name] = Corrected(max(errors) if np.isfinite(errors).all() else float("inf"), shifts[name])
    return found


def _apart(
    signature: Signature, outputs: Mapping[str, Mapping[str, Array]], scores: Mapping[str, RowScore]
) -> dict[tuple[str, str], Apart]:
    found: dict[tuple[str, str], Apart] = {}
    for variant in outputs if "fp32" in outputs else ():
        for task in signature.tasks:
            kind = kind_of(task)
            if task.name in scores:
                mean, largest = scores[task.name].apart(variant)
                scale = max(scores[task.name].ignoring, kind.least) or 1.0
                found[variant, task.name] = Apart(mean, largest, scale, scores[task.name].images)
                continue
            weight = kind.weight(task, outputs["fp32"][task.name])
            expected = outputs["fp32"][task.name].astype(np.float64) * weight
            difference = np.abs(outputs[variant][task.name] * weight - expected)
            scale = float(np.mean(np.abs(expected - expected.mean(axis=0))))
            size = float(np.abs(expected).max())
            if kind.least and kind.bounded(task, decoded=signature.outputs == "decoded"):
                scale = max(scale, kind.least)
            elif scale <= np.spacing(np.float32(size)):
                scale = max(size, 1e-3)
            found[variant, task.name] = Apart(float(np.mean(difference)), float(difference.max()), scale, len(expected))
    return found


def stored(outputs: Mapping[str, Array]) -> Answers:
    """Return outputs that were computed before as a source.

    Args:
        outputs: by task, an array with one row per image.
    """
    return lambda start, stop: {name: values[start:stop] for name, values in outputs.items()}
