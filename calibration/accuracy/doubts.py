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
from mtl_deploy.calibration.data.labels import Labels, known
from mtl_deploy.runtime.bundle.tasks import Task

from .evaluate import Evaluation
from .map_cells import CONSTANT
from .map_metrics import best_constant, figures
from .metrics import Outputs, chosen_classes, per_sample, values
from .paired_losses import MeanSample, Sample, SumsSample
from .paired_shares import score_interval

_LITTLE = 0.1
"""Share of what a network could gain over a constant answer; a smaller gain counts as none."""
_ENOUGH = 36  # unlabelled images: if all get one class, less than 10 % of others would get another (at 97.5 %)
_UNLEARNED = (
    "the network has not learned the task, or labels, unit or preprocessing are not those that it was trained with"
)
_SEVERAL = 8  # images with exactly the same output


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
        if task.dense:
            said = _of_maps(task, losses.rows if losses.labelled else None, (name, task.name) in found.constant, seed)
        else:
            outputs, labels = found.outputs[name][task.name], data.labels.get(task.name)
            labels = None if labels is None or not known(labels).any() else labels
            made = _of_values if task.of_values else _of_classes
            said = made(task, outputs, labels, decoded, seed)
        sentences += [f"task {task.name!r}: {shown} {text}" for text in said]
    order = {task: i for i, task in enumerate(dict.fromkeys(cell.task for cell in found.matrix.cells))}
    return tuple(sorted(sentences, key=lambda text: order[text.split("'")[1]]))


def _of_classes(task: Task, outputs: Outputs, labels: Labels | None, decoded: bool, seed: int) -> Iterator[str]:
    answers = chosen_classes(task, outputs, decoded)
    if labels is not None:
        answers, labels = answers[known(labels)], labels[known(labels)]
    constant = (answers == answers[0]).all() and answers[0] >= 0
    count = len(answers)
    if labels is None:
        if constant and count >= _ENOUGH:
            yield (
                f"answers {_class(task, answers[0])} for each of {count} images: unless all are of that class, agreement says "
                f"nothing, and {_UNLEARNED}"
            )
        return
    others = int((labels != answers[0]).sum())
    if constant and score_interval(others, 0, count)[0] > 0:
        yield (
            f"answers {_class(task, answers[0])} for each of {count} images, though {others} are of other classes: {_UNLEARNED}"
        )
        return
    numbers, counts = np.unique(labels, return_counts=True)
    most = numbers[counts.argmax()]
    if len(numbers) < 2:
        return
    usual = (labels == most).astype(np.float64)
    gain = MeanSample((answers == labels).astype(np.float64), usual, shares=True, seed=seed)
    recalls = [float((answers == labels)[labels == number].mean()) for number in numbers]
    balanced = f"; balanced accuracy {100 * np.mean(recalls):.1f} %, by chance {100 / len(numbers):.1f} %"
    yield from _judged(
        gain, 1 - usual.mean(), f"always answering {_class(task, most)}", "accuracy", " points", balanced
    )


def _of_values(task: Task, outputs: Outputs, labels: Labels | None, decoded: bool, seed: int) -> Iterator[str]:
    numbers = values(task, outputs, decoded)
    unit = f" {task.unit}" if task.unit else ""
    reach = np.ptp(numbers, axis=0)
    if len(numbers) >= _SEVERAL and (reach <= CONSTANT * np.abs(numbers).max(axis=0)).all():
        shown = ", ".join(f"{value:.4g}" for value in numbers[0])
        yield f"answers {shown}{unit} for each of {len(numbers)} images: its output does not depend on the image"
        return
    if labels is None:
        return
    present = known(labels)
    truth = labels[present].reshape(int(present.sum()), -1)
    middle = np.median(truth, axis=0)
    usual = np.abs(truth - middle).mean(axis=1)
    if not usual.any():
        return
    gain = MeanSample(usual, per_sample(task, outputs, labels, decoded)[present], shares=False, seed=seed)
    shown = ", ".join(f"{value:.4g}" for value in middle)
    yield from _judged(gain, usual.mean(), f"always answering {shown}{unit}, the median", "mean absolute error", unit)


def _of_maps(task: Task, sums: npt.NDArray[np.float64] | None, constant: bool, seed: int) -> Iterator[str]:
    if constant and (sums is None or len(sums) >= _SEVERAL):
        answered = ""
        if sums is not None and task.kind == "segmentation":
            said, true = sums[:, task.size : 2 * task.size].sum(axis=0), sums[:, 2 * task.size :].sum(axis=0)
            if true[said.argmax()] == true.sum():
                return  # which is right
            answered = f" ({_class(task, said.argmax())})"
        yield f"gives one value for all pixels of all images{answered}: its output does not depend on the image"
        return
    if sums is None or task.kind == "normals":
        return
    answer, usual = best_constant(task, sums)
    figure = float(next(iter(figures(task, usual.sum(axis=0)).values())))
    if task.kind == "segmentation":
        if (sums[:, 2 * task.size :].sum(axis=0) > 0).sum() < 2:
            return
        best, room, unit = f"calling every pixel {_class(task, answer)}", 1 - figure, " points"
    else:
        unit = f" {task.unit}" if task.unit else ""
        best, room = f"calling every pixel {answer:.4g}{unit}, the mean", figure
        if figure <= 0:
            return
    gain = SumsSample(task, usual, sums, seed)
    yield from _judged(gain, room, best, "mean IoU" if task.kind == "segmentation" else "RMSE", unit)


def _judged(gain: Sample, room: float, best: str, metric: str, unit: str, more: str = "") -> Iterator[str]:
    low, high = gain.interval
    if low > 0 or not np.isfinite(gain.drop):
        return
    scale = 100 if unit == " points" else 1
    figure = (
        f"{scale * gain.drop:+.3g}{unit} of {metric}, 95 % interval {scale * low:+.3g} to {scale * high:+.3g}{more}"
    )
    if high < 0:
        yield f"is worse than {best} ({figure}): {_UNLEARNED}"
    elif high <= _LITTLE * room:
        yield f"is no better than {best} ({figure}): {_UNLEARNED}"
    else:
        yield f"may be no better than {best}: {gain.images} images are too few to tell ({figure})"


def _class(task: Task, number: float) -> str:
    return f"'{task.labels[int(number)]}'" if task.labels else f"class {int(number)}"
