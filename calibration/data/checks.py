"""Warnings about weak calibration data, before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task

from .labels import Labels, classes, known

FEW = 128  # images; NVIDIA recommends 500 or more
_LOOKED_AT = 64  # images, evenly spaced, for what needs floating point
_FLAT = 4.0  # levels of 255: pixels with a smaller standard deviation are nearly constant
_ALIKE = 2.0
_NOISE = 0.05  # correlation of neighbouring pixels: random numbers have 0, pictures much more


def data_warnings(
    images: npt.NDArray[np.uint8], labels: Mapping[str, Labels], tasks: Sequence[Task], *, labelled: bool
) -> tuple[str, ...]:
    """Return one sentence per weakness: too few images, hardly any variation, random numbers, missing labels.

    Args:
        images: ``(N, H, W, 3) uint8, RGB``.
        labels: as in :class:`~mtl_deploy.calibration.data.dataset.CalibrationData`.
        tasks: the network's, except those whose labels are kept elsewhere.
        labelled: whether any task has labels; if none has, missing labels are no weakness.
    """
    found = []
    if len(images) < FEW:
        found.append(f"only {len(images)} images: the results are uncertain; 512 or more are better")
    found += _of_pixels(images)
    if labelled:
        for task in tasks:
            found += _of_labels(task, labels.get(task.name), len(images))
    return tuple(found)


def _of_pixels(images: npt.NDArray[np.uint8]) -> list[str]:
    step = -(-len(images) // _LOOKED_AT)
    looked_at = images[::step].astype(np.float32)
    if (spread := float(looked_at.std())) < _FLAT:
        return [f"the images are nearly constant: their pixels vary by {spread:.1f} of 255 levels"]
    if len(images) > 1 and (spread := float(looked_at.std(axis=0).mean())) < _ALIKE:
        return [f"the images are nearly the same: a pixel varies by {spread:.1f} of 255 levels from image to image"]
    if looked_at.shape[2] > 7:
        neighbours = looked_at - looked_at.mean(axis=(1, 2), keepdims=True)
        variance = float((neighbours**2).mean())
        related = float((neighbours[:, :, 1:] * neighbours[:, :, :-1]).mean())
        if variance > 0 and related < _NOISE * variance:
            return [
                "the images look like random numbers: neighbouring pixels are not correlated; calibrate with real images, or "
                "the ranges will be those of noise"
            ]
    return []


def _of_labels(task: Task, values: Labels | None, images: int) -> list[str]:
    if values is None:
        return [f"{task.name}: no labels; its outputs can only be compared with FP32"]
    present = known(values)
    found = []
    if (count := int(present.sum())) < images:
        found.append(f"{task.name}: labels for {count} of {images} images")
    values = values[present]
    if task.of_values:
        if len(values) > 1 and (values == values[0]).all():
            found.append(f"{task.name}: all labels are {values.flat[0]:g}")
        return found
    number = classes(task) or 0
    if missing := sorted(set(range(number)) - set(values.tolist())):
        names = [task.labels[i] if task.labels else str(i) for i in missing]
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        found.append(f"{task.name}: no image of {len(names)} of {number} classes ({shown})")
    return found
