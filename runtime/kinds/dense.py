"""What kinds share that have one value per pixel of the original image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, is_finite
from mtl_deploy.runtime.predictions.sampling import Map, Sampling


class DenseKind(Kind):
    """One value per pixel, resampled to the original image's size, without the border of a letterbox."""

    takes = frozenset(("stride", "upsample"))
    dense = True
    of_maps = True

    def plane(self, task: Task) -> bool:
        """Return whether a decoded map has no channel axis: ``(H, W)`` instead of ``(C, H, W)``."""
        raise NotImplementedError

    def value(self, task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
        """Return one image's map at the image's size, ``(H, W)`` or ``(H, W, channels)``.

        Args:
            task: with its size.
            sample: one image's output: ``raw_shape`` or ``decoded_shape``.
            form: which of them.
            sampling: the way from the output's grid to the image's pixels. Logits and raw values are interpolated first, then
                decoded.
        """
        raise NotImplementedError

    def unseen(self, task: Task, value: Array) -> float:
        """Return what pixels have that the network has not seen: a crop cut them off, or they lie around a box in its frame."""
        raise NotImplementedError

    def prediction(self, task: Task, value: Array, placement: ImagePlacement) -> Prediction:
        """Return a map as a prediction."""
        return Prediction(task.name, task.kind, value, unit=task.unit, labels=task.labels)

    def decoded_shape(self, task: Task, height: int, width: int) -> tuple[int, ...]:
        stride = 1 if task.upsample else task.stride or 1
        size = (height // stride, width // stride)
        return size if self.plane(task) else (task.size, *size)

    def values(self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement]) -> list[Array]:
        """Return each image's map at the image's own size, or that of its frame; what was not seen has :meth:`unseen`.

        A map that already has that size is not copied.

        Args:
            task: with its size.
            output: ``(N, ...)`` as the graph returns it.
            form: ``decoded`` where the graph ends in decoded maps, ``logits`` where it returns the network's own.
            placements: where each image lies in the network's input; no more are decoded than there are.
        """
        samplings: dict[ImagePlacement, Sampling] = {}
        values = []
        for sample, placement in zip(output, placements, strict=False):
            sampling = samplings.get(placement)
            if sampling is None:
                height, width = sample.shape[-2:]
                sampling = samplings[placement] = Sampling((height, width), placement)
            value = self.value(task, sample, form, sampling)
            if sampling.unseen is not None:
                value[sampling.unseen] = self.unseen(task, value)
            values.append(value if placement.frame is None else self._in_frame(task, value, placement))
        return values

    def _in_frame(self, task: Task, value: Array, placement: ImagePlacement) -> Array:
        """Put an image's map where the image was cut out of its frame."""
        assert placement.frame is not None
        whole = np.full((*placement.frame, *value.shape[2:]), self.unseen(task, value), value.dtype)
        (top, left), (height, width) = placement.origin, value.shape[:2]
        whole[top : top + height, left : left + width] = value
        return whole

    def decode(
        self, task: Task, output: Array, form: Outputs, placements: Sequence[ImagePlacement] | None
    ) -> list[Prediction]:
        if placements is None:
            placements = [_whole(task, output, form)] * len(output)
        values = self.values(task, output, form, placements)
        found = []
        for value, placement, sample in zip(values, placements, output, strict=False):
            made = self.prediction(task, value, placement)
            found.append(replace(made, finite=is_finite(sample)))
        return found


def floats(sample: Array) -> Map:
    """Return an output as float32."""
    return sample.astype(np.float32, copy=False)


def _whole(task: Task, output: Array, form: Outputs) -> ImagePlacement:
    height, width = output.shape[-2:]
    if form == "logits" or not task.upsample:
        height, width = height * max(task.stride, 1), width * max(task.stride, 1)
    return ImagePlacement((height, width), (height, width), (0, 0, height, width))
