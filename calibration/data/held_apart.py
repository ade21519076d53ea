"""Which images calibrate, which choose layers, and which measure what came out."""

from __future__ import annotations

from mtl_deploy.calibration.options import EVALUATION, SEARCHED, Int8Options
from mtl_deploy.runtime.errors import ImageError

from .dataset import CalibrationData

Parts = tuple[CalibrationData, CalibrationData | None, CalibrationData]
"""The images that calibrate, those that choose layers where there are budgets, and those that measure."""


def held_apart(data: CalibrationData, options: Int8Options) -> Parts:
    """Return the images to calibrate on, those to search on where there are budgets, and those to measure accuracy on.

    No two have an image in common: layers that were chosen by an image's answers say nothing of others. Two thirds of what does not
    calibrate measure, as they confirm the budgets too; the search has the calibrating images beside its own. Those that calibrate
    are the same with and without budgets.

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
