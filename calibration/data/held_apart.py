"""Which images are used for calibration, which for choosing layers, and which for measuring the result."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_deploy.calibration.options import EVALUATION, SEARCHED, Int8Options
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError

from .dataset import CalibrationData

Parts = tuple[CalibrationData, CalibrationData | None, CalibrationData]
"""The images for calibration, those for choosing layers (None without budgets), and those for measuring."""


def held_apart(data: CalibrationData, options: Int8Options) -> Parts:
    """Return the images to calibrate on, those to choose layers on if there are budgets, and those to measure accuracy on.

    No image is in two parts: a choice of layers must be measured on images that it was not made on. Two thirds of the images that
    are not used for calibration are for measuring, as they confirm the budgets too; the search uses the calibration images beside
    its own. The calibration images are the same with and without budgets.

    Raises:
        ImageError: there are fewer different images than parts.
    """
    others = 1 - EVALUATION
    try:
        part = data.parts((EVALUATION, others * SEARCHED, others * (1 - SEARCHED)), options.seed)
    except ImageError:
        if options.budgets is not None:
            raise
        part = data.parts((EVALUATION, others), options.seed)  # two images will do
    if options.budgets is None:
        return data.select(part == 0), None, data.select(part > 0)
    return data.select(part == 0), data.select(part == 1), data.select(part == 2)


def missing_labels(data: CalibrationData, held_out: CalibrationData, tasks: Sequence[Task]) -> tuple[str, ...]:
    """Return a warning for each task that has labels, none of which reaches the images that it is measured on.

    Args:
        data: all images that are used.
        held_out: those for measuring.
        tasks: the network's.

    Raises:
        OptionError: there are labels, and none of any task reaches them: nothing could be measured.
    """
    labelled = [task.name for task in tasks if task.name in data.labels or task.name in data.dense]
    absent = [name for name in labelled if name not in held_out.labels and name not in held_out.dense]
    if labelled and absent == labelled:
        raise OptionError(
            f"{data.source}: none of the labels ({', '.join(labelled)}) is of one of the {len(held_out)} images that are held out "
            "to measure on: label more of the images, or leave --labels out to compare INT8 with FP32 alone"
        )
    return tuple(
        f"{name}: none of its labels is of a held-out image, so it is only compared with FP32; label more images"
        for name in absent
    )
