"""A map of classes as colours over the image, with the classes that occur below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.predictions.drawing import Colour, Legend, Panel, Pixels
from mtl_deploy.runtime.predictions.summary import with_share
from mtl_deploy.runtime.show.colours import of_classes, palette

BLEND = 0.6  # share of the class's colour over the image
LISTED = 12  # classes in a legend


def class_panel(labels: Sequence[str], classes: int, value: npt.NDArray[np.integer], image: Pixels) -> Panel:
    """Return a map of classes as colours over the image; the largest classes, with their shares, are the key.

    Args:
        labels: of the classes; may be empty.
        classes: how many there are; 0 where that is not known.
        value: ``(H, W)`` indices.
        image: ``(H, W, 3) uint8``, RGB.
    """
    classes = classes or len(labels) or int(value.max()) + 1
    blended = np.round(BLEND * of_classes(value, classes) + (1 - BLEND) * image).astype(np.uint8)
    indices = np.asarray(value, np.int64).ravel()
    known = indices[(indices >= 0) & (indices < classes)]  # a crop leaves pixels without a class
    counts = np.bincount(known, minlength=classes)
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    colours = palette(classes)
    entries: list[tuple[str, Colour | None]] = []
    for index in order[:LISTED]:
        label = visible(labels[index]) if index < len(labels) else str(index)
        red, green, blue = (int(part) for part in colours[index])
        entries.append((with_share(label, f"{100 * counts[index] / known.size:.0f} %"), (red, green, blue)))
    if rest := order[LISTED:]:
        share = 100 * counts[rest].sum() / known.size
        entries.append((f"{len(rest)} more: {share:.0f} %", None))
    return Panel(blended, Legend(tuple(entries)))
