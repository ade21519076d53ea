"""Coordinates in a network's input as coordinates in the image, through stretch, letterbox and crop.

A coordinate counts from the upper left corner of the upper left pixel, so that an image of width W reaches from 0 to W.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement

from .fields import axes, options_of

Floats = npt.NDArray[np.float64]


def way_back(frame: str, placement: ImagePlacement) -> Floats:
    """Return ``(4,)``: factor and shift from the network's x to the image's, then those of y."""
    top, left = placement.box[:2]
    down, along = placement.scale
    height, width = placement.input if frame == "unit" else (1, 1)
    above, before = placement.origin
    return np.array([width / along, before - left / along, height / down, above - top / down])


def in_image(task: Task, values: Floats, way: Floats) -> Floats:
    """Return values with coordinates in the image's pixels.

    Args:
        task: with its size and a frame.
        values: ``(N, size)``, in the network's frame.
        way: ``(N, 4)`` or ``(4,)``, see :func:`way_back`.
    """
    if options_of(task).frame is None:
        return values
    found = values.astype(np.float64)
    starts = {"x": 0, "width": 0, "y": 2, "height": 2}
    for position, axis in enumerate(axes(task)):
        if axis is None:
            continue
        found[:, position] *= way[..., starts[axis]]
        if axis in ("x", "y"):
            found[:, position] += way[..., starts[axis] + 1]
    return found


def in_network(task: Task, values: Floats, way: Floats) -> Floats:
    """Return values with coordinates in the network's frame; the inverse of :func:`in_image`."""
    factor, shift = (in_image(task, np.full_like(values, one, dtype=np.float64), way) for one in (1.0, 0.0))
    found: Floats = (values - shift) / (factor - shift)
    return found
