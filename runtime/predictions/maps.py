"""From a graph's dense outputs to a value for each pixel of the original image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import MANY_CLASSES, Task
from mtl_deploy.runtime.images.fit import ImagePlacement

from .sampling import Labels, Map, Sampling

UNSEEN_CLASS = 255
"""The class index of pixels that a crop left out, as data sets call what has no class; -1 where indices are int32."""
LEAST_LENGTH = 1e-6  # vectors shorter than this are not made unit length, as in the graphs


def dense_values(task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement]) -> list[Array]:
    """Return each image's map at the image's own size, without the border of a letterbox; what a crop left out has no value.

    A map that already has that size is not copied. Logits and raw values are interpolated first, then decoded.

    Args:
        task: with its size.
        output: ``(N, ...)`` as the graph returns it; see :meth:`~mtl_deploy.runtime.bundle.signature.Signature.sample_shape`.
        form: ``decoded`` where the graph ends in decoded maps, ``logits`` where it returns the network's own.
        placements: where each image lies in the network's input; no more are decoded than there are.

    Returns:
        Per image: ``(H, W) uint8`` class indices (``int32`` where there are more than 256 classes), ``(H, W) float32`` depth in its
        unit, or ``(H, W, 3) float32`` unit normals. Pixels outside the crop have the class :func:`unseen_class`, depth NaN and
        zero normals; a segmentation of 256 classes is int32 then, as no index is free.
    """
    decode = {"segmentation": _classes, "depth": _depth, "normals": _normals}[task.kind]
    samplings: dict[ImagePlacement, Sampling] = {}
    values = []
    for sample, placement in zip(output, placements, strict=False):
        sampling = samplings.get(placement)
        if sampling is None:
            height, width = sample.shape[-2:]
            sampling = samplings[placement] = Sampling((height, width), placement)
        value = decode(task, sample, form, sampling)
        if sampling.unseen is not None:
            value[sampling.unseen] = _unseen(task, value)
        values.append(value)
    return values


def unseen_class(value: Array) -> int:
    """Return the index that pixels outside the crop have in a map of classes of this type."""
    return UNSEEN_CLASS if value.dtype == np.uint8 else -1


def _unseen(task: Task, value: Array) -> float:
    if task.kind == "segmentation":
        return unseen_class(value)
    return np.nan if task.kind == "depth" else 0.0


def _classes(task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
    most = MANY_CLASSES if sampling.unseen is None else UNSEEN_CLASS
    dtype = np.dtype(np.int32 if task.size > most else np.uint8)
    if form == "decoded" and task.argmax:
        return sampling.nearest(cast("Labels", sample)).astype(dtype, copy=False)
    return _argmax(_floats(sample), sampling, dtype)


def _argmax(logits: Map, sampling: Sampling, dtype: npt.DTypeLike) -> Array:
    """Return the index of the largest interpolated logit, the first of equal ones. It holds the maps of two classes at a time."""
    best = sampling.bilinear(logits[0]).copy()
    found = np.zeros(best.shape, dtype)
    for index in range(1, len(logits)):
        plane = sampling.bilinear(logits[index])
        np.copyto(found, index, where=plane > best, casting="unsafe")
        np.maximum(best, plane, out=best)
    return found


def _depth(task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
    values = _floats(sample).reshape(sample.shape[-2:])  # raw depth may have a channel
    if form == "decoded" and sampling.identity:
        return values
    if form == "logits" and (task.scale, task.offset) != (1.0, 0.0):
        values = values * np.float32(task.scale) + np.float32(task.offset)
    values = sampling.bilinear(values)
    if task.valid_range is None:
        return values
    least, greatest = task.valid_range
    return np.clip(values, np.float32(least), np.float32(greatest))


def _normals(_: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
    values = _floats(sample)
    if form == "decoded" and sampling.identity:
        return values.transpose(1, 2, 0)
    x, y, z = vectors = sampling.bilinear(values)
    lengths = np.sqrt(x * x + y * y + z * z)
    normals: Map = vectors / np.maximum(lengths, np.float32(LEAST_LENGTH))
    return normals.transpose(1, 2, 0)


def _floats(sample: Array) -> Map:
    return sample.astype(np.float32, copy=False)
