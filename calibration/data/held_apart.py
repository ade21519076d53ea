"""Which images are used for calibration, which for choosing layers, and which for measuring the result."""

from __future__ import annotations

from mtl_deploy.calibration.options import EVALUATION, SEARCHED, Int8Options
from mtl_deploy.runtime.errors import ImageError

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
