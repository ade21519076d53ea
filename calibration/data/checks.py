"""Warnings about weak calibration data, before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_deploy.calibration.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.nouns import counted

from .labels import Labels, known
from .stored import Images

FEW = 128  # images; NVIDIA recommends 500 or more
_LOOKED_AT = 64  # images, evenly spaced, for what needs floating point
_FLAT = 4.0  # levels of 255: pixels with a smaller standard deviation are nearly constant
_ALIKE = 2.0
_NOISE = 0.05  # correlation of neighbouring pixels: random numbers have 0, pictures much more


def data_warnings(
    images: Images, labels: Mapping[str, Labels], tasks: Sequence[Task], *, labelled: bool
) -> tuple[str, ...]:
    """Return one sentence per weakness: too few images, hardly any variation, random numbers, missing labels.

    Args:
        images: ``(N, H, W, C) uint8``.
        labels: as in :class:`~mtl_deploy.calibration.data.dataset.CalibrationData`.
        tasks: the network's, except those whose labels are kept elsewhere.
        labelled: whether any task has labels; if none has, missing labels are no weakness.
    """
    found = []
    if len(images) < FEW:
        found.append(f"only {counted(len(images), 'image')}: the results are uncertain; 512 or more are better")
    found += _of_pixels(images)
    if labelled:
        for task in tasks:
            found += _of_labels(task, labels.get(task.name), len(images))
    return tuple(found)


def _of_pixels(images: Images) -> list[str]:
    seen = _Pixels()
    for position in range(0, len(images), -(-len(images) // _LOOKED_AT)):
        seen.add(images[position])
    if (spread := seen.spread) < _FLAT:
        return [f"the images are nearly constant: their pixels vary by {spread:.1f} of 255 levels"]
    if len(images) > 1 and (spread := seen.spread_between) < _ALIKE:
        return [f"the images are nearly the same: a pixel varies by {spread:.1f} of 255 levels from image to image"]
    if seen.related is not None and seen.related < _NOISE:
        return [
            "the images look like random numbers: neighbouring pixels are not correlated; calibrate with real images, or "
            "the ranges will be those of noise"
        ]
    return []


class _Pixels:
    """How the pixels of images vary, from 0 to 255; it holds sums, not the images. Add one image at least before asking."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Any = 0.0  # by pixel, as are the squares
        self._squares: Any = 0.0
        self._variances: list[float] = []
        self._neighbours: list[float] = []

    def add(self, image: Any) -> None:
        """Add an image ``(H, W, C) uint8``, of the size of those before."""
        pixels = image.astype(np.float64)
        self._count += 1
        self._sum += pixels
        self._squares += pixels**2
        if pixels.shape[1] > 7:
            apart = pixels - pixels.mean(axis=(0, 1))
            self._variances.append(float((apart**2).mean()))
            self._neighbours.append(float((apart[:, 1:] * apart[:, :-1]).mean()))

    @property
    def spread(self) -> float:
        """Standard deviation of all values, of all pixels and channels."""
        mean = np.mean(self._sum) / self._count
        return float(np.sqrt(max(np.mean(self._squares) / self._count - mean**2, 0.0)))

    @property
    def spread_between(self) -> float:
        """Standard deviation of a pixel from image to image, as a mean over pixels."""
        return float(np.sqrt(np.maximum(self._squares / self._count - (self._sum / self._count) ** 2, 0)).mean())

    @property
    def related(self) -> float | None:
        """Correlation of pixels side by side; None for images that are constant or narrower than 8 pixels."""
        variance = float(np.mean(self._variances)) if self._variances else 0.0
        return float(np.mean(self._neighbours)) / variance if variance > 0 else None


def _of_labels(task: Task, values: Labels | None, images: int) -> list[str]:
    if values is None:
        return [f"{task.name}: no labels; its outputs can only be compared with FP32"]
    present = known(values)
    found = []
    if (count := int(present.sum())) < images:
        found.append(f"{task.name}: labels for {count} of {images} images")
    values = values[present]
    if not kind_of(task).chooses:
        if len(values) > 1 and values.dtype.kind == "f" and (values == values[0]).all():
            found.append(f"{task.name}: all labels are {f'{values.flat[0]:g}' if values.ndim == 1 else 'equal'}")
        return found + kind_of(task).label_warnings(task, values)
    number = kind_of(task).classes(task) or 0
    if missing := sorted(set(range(number)) - set(values.tolist())):
        names = [task.labels[i] if task.labels else str(i) for i in missing]
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        found.append(f"{task.name}: no image of {len(names)} of {number} classes ({shown})")
    return found
