"""The outcome of a confirmed search in words that separate what the images show from what they do not."""

from __future__ import annotations

import math

from mtl_deploy.calibration.accuracy.metrics import main_metric
from mtl_deploy.calibration.kinds.registry import kind_of, metric_of
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.nouns import counted

from .confirmation import Confirmed, Shown


def summary(found: Confirmed, signature: Signature, images: int) -> str:
    """Return the outcome in one or two sentences.

    Args:
        found: the outcome.
        signature: the network's.
        images: number of all images, of which only some are used to confirm.
    """
    if found.outcome == "met":
        return _met(found, images)
    tasks = {task.name: task for task in signature.tasks}
    if found.outcome == "missed":
        over = {name: shown for name, shown in found.open.items() if shown.low > shown.budget} or found.open
        figures = "; ".join(f"task {name!r} drops by {_figures(tasks[name], shown)}" for name, shown in over.items())
        return f"missed: {figures}, even with every layer in higher precision; allow more with --max-drop, or use fp16"
    figures = "; ".join(f"task {name!r} drops by {_figures(tasks[name], shown)}" for name, shown in found.open.items())
    return f"undecided: {counted(found.images, 'image')} cannot show that every budget is met: {figures}. {_way_on(found, images)}"


def _met(found: Confirmed, images: int) -> str:
    layers = counted(len(found.skip), "layer")
    text = (
        f"met: {found.images} images that were not used to choose layers show every task within its budget, with {layers} in "
        "higher precision"
    )
    if found.wished:
        fewer = len(found.search.skip)
        number = _in_all(found.wished, images)
        text += f"; the search would keep only {fewer}, which about {number:,} labelled images in all could confirm"
    return text


def _way_on(found: Confirmed, images: int) -> str:
    hopeless = [name for name, shown in found.open.items() if shown.needed is None]
    if found.times is None:
        return (
            f"No number of images would show it for {', '.join(map(repr, hopeless))} if the drop is as large as measured: give "
            "more images to measure it better, or allow more with --max-drop"
        )
    number = _in_all(found.times, images)
    return (
        f"About {number:,} images in all, labelled as these are, would decide it (--calibration-samples {number}); or "
        "allow more with --max-drop"
    )


def _in_all(times: float, images: int) -> int:
    """Return a number of images times a factor, rounded up to two digits."""
    number = math.ceil(times * images)
    unit = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // unit) * unit


def _figures(task: Task, shown: Shown) -> str:
    metric = metric_of(main_metric(task))
    own = kind_of(task).unit(task) if metric.has_unit else None
    scale, unit = (100, " points") if metric.share else (1, f" {own}" if own else "")
    drop, low, high, budget = (f"{scale * value:.3g}" for value in (shown.drop, shown.low, shown.high, shown.budget))
    return f"{drop}{unit} (95 % interval {low} to {high}; budget {budget})"
