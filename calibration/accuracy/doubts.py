"""Whether a network has learned its tasks at all: what INT8 costs means little if FP32 does not look at the image either.

Each task is compared with the best constant answer: the most frequent class, the median of a regression's labels, the class of most
pixels, the mean depth. The difference has a paired 95 % interval. "No better" is said only if the interval ends below a tenth of
what could be gained; if there are too few images to tell, that is said instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.dataset import CalibrationData
from mtl_deploy.calibration.kinds.base import Labels, Outputs, Usual
from mtl_deploy.calibration.kinds.cells import known
from mtl_deploy.calibration.kinds.classes import class_named
from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task

from .evaluate import Evaluation
from .paired_losses import MeanSample, Sample, SumsSample
from .paired_shares import score_interval
from .row_cells import CONSTANT
from .row_metrics import row_kind

_LITTLE = 0.1
"""Share of what a network could gain over a constant answer; a smaller gain counts as none."""
_ENOUGH = 36  # unlabelled images: if all get one class, less than 10 % of others would get another (at 97.5 %)
_UNLEARNED = (
    "the network has not learned the task, or labels, unit or preprocessing are not those that it was trained with"
)
_SEVERAL = 8  # images with exactly the same output
_SHOWN = 8  # values of an answer


def doubts(found: Evaluation, data: CalibrationData, variant: str, *, decoded: bool, seed: int = 0) -> tuple[str, ...]:
    """Return one sentence for each task in which a network is no better than a constant answer, or may be no better.

    Args:
        found: the network's results.
        data: the images that it was run on.
        variant: the precision that it was run in; ``fp32`` if the bundle has it.
        decoded: see :func:`~mtl_deploy.calibration.accuracy.metrics.metrics`.
        seed: for the intervals.
    """
    shown = variant.upper()
    sentences: list[str] = []
    for (name, _), losses in found.losses.items():
        if name != variant:
            continue
        task = losses.task
        if kind_of(task).by_rows:
            said = _of_rows(task, losses.rows if losses.labelled else None, (name, task.name) in found.constant, seed)
        else:
            outputs, labels = found.outputs[name][task.name], data.labels.get(task.name)
            labels = None if labels is None or not known(labels).any() else labels
            said = _of_outputs(task, outputs, labels, decoded, seed)
        sentences += [f"task {task.name!r}: {shown} {text}" for text in said]
    order = {task: i for i, task in enumerate(dict.fromkeys(cell.task for cell in found.matrix.cells))}
    return tuple(sorted(sentences, key=lambda text: order[text.split("'")[1]]))


def _of_outputs(task: Task, outputs: Outputs, labels: Labels | None, decoded: bool, seed: int) -> Iterator[str]:
    kind = kind_of(task)
    if labels is not None and kind.chooses:
        outputs, labels = outputs[known(labels)], labels[known(labels)]
    said = _constant_class(task, outputs, labels, decoded) if kind.chooses else _constant_values(task, outputs, decoded)
    if said is not None:
        yield from said
        return
    if labels is None:
        return
    outputs, labels = outputs[known(labels)], labels[known(labels)]
    if (usual := kind.usual(task, outputs, labels, decoded)) is None:
        return
    losses = [kind.loss(each) for each in (usual.per_image, kind.per_image(task, outputs, labels, decoded))]
    yield from _judged(MeanSample(losses[0], losses[1], shares=kind.right_or_wrong, seed=seed), usual)


def _constant_class(task: Task, outputs: Outputs, labels: Labels | None, decoded: bool) -> tuple[str, ...] | None:
    """Say that each image gets one class; nothing if there are too few images to tell, None if they do not."""
    answers = kind_of(task).choices(task, outputs, decoded)
    count = len(answers)
    if not ((answers == answers[0]).all() and answers[0] >= 0):
        return () if labels is None else None
    if labels is None:
        if count < _ENOUGH:
            return ()
        return (
            f"answers {class_named(task, answers[0])} for each of {count} images: unless all are of that class, agreement says "
            f"nothing, and {_UNLEARNED}",
        )
    others = int((labels != answers[0]).sum())
    if score_interval(others, 0, count)[0] > 0:
        return (
            f"answers {class_named(task, answers[0])} for each of {count} images, though {others} are of other classes: "
            f"{_UNLEARNED}",
        )
    return None


def _constant_values(task: Task, outputs: Outputs, decoded: bool) -> tuple[str, ...] | None:
    numbers = kind_of(task).values(task, outputs, decoded)
    reach = np.ptp(numbers, axis=0)
    if len(numbers) < _SEVERAL or not (reach <= CONSTANT * np.abs(numbers).max(axis=0)).all():
        return None
    unit = f" {task.unit}" if task.unit else ""
    shown = ", ".join(f"{value:.4g}" for value in numbers[0][:_SHOWN]) + (", ..." if numbers.shape[1] > _SHOWN else "")
    return (f"answers {shown}{unit} for each of {len(numbers)} images: its output does not depend on the image",)


def _of_rows(task: Task, rows: npt.NDArray[np.float64] | None, constant: bool, seed: int) -> Iterator[str]:
    kind = row_kind(task)
    if constant and (rows is None or len(rows) >= _SEVERAL):
        answered = "" if rows is None else kind.same_answer(task, rows)
        if answered is not None:
            yield f"gives {kind.one_value}{answered}: its output does not depend on the image"
        return
    if rows is None or (usual := kind.usual_rows(task, rows)) is None:
        return
    yield from _judged(SumsSample(task, usual.per_image, rows, seed), usual)


def _judged(gain: Sample, usual: Usual) -> Iterator[str]:
    best, unit = usual.answer, usual.unit
    low, high = gain.interval
    if low > 0 or not np.isfinite(gain.drop):
        return
    scale = 100 if unit == " points" else 1
    figure = (
        f"{scale * gain.drop:+.3g}{unit} of {usual.metric}, 95 % interval {scale * low:+.3g} to {scale * high:+.3g}"
        f"{usual.more}"
    )
    if high < 0:
        yield f"is worse than {best} ({figure}): {_UNLEARNED}"
    elif high <= _LITTLE * usual.room:
        yield f"is no better than {best} ({figure}): {_UNLEARNED}"
    else:
        yield f"may be no better than {best}: {gain.images} images are too few to tell ({figure})"
