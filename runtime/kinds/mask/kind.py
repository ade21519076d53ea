"""Yes or no for each pixel: a logit from the threshold on, interpolated first.

Of two channels the difference of the logits decides, which is the logit of their softmax. Two sigmoids are two answers; as their
authors do (YOLOP, https://github.com/hustvl/YOLOP, ``tools/demo.py``), the larger one counts.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.activation import Activation
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.dense import DenseKind, floats
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.predictions.drawing import Legend, Panel, Pixels
from mtl_deploy.runtime.predictions.sampling import Labels, Map, Sampling
from mtl_deploy.runtime.predictions.summary import with_share
from mtl_deploy.runtime.show.colours import palette

UNSEEN = 255  # pixels that a crop left out, as in label pictures
BLEND = 0.6  # share of the mask's colour over the image


class Mask(DenseKind):
    """A map ``(H, W) uint8``: 1 where the mask is, 0 where it is not, 255 where a crop left the image out."""

    name = "mask"
    called = "a mask"
    takes = DenseKind.takes | {"labels", "threshold"}
    of_classes = True
    example = "mask:road"

    def check(self, task: Task) -> None:
        if len(task.labels) > 2:
            raise TaskError(
                f"task {task.name!r}: a mask has one label, of what it marks, or two (negative, positive), got "
                f"{len(task.labels)}: {', '.join(task.labels)}; declare it segmentation if each is a class"
            )

    def check_size(self, task: Task, size: int) -> None:
        if size not in (1, 2):
            raise TaskError(
                f"task {task.name!r} is a mask but the network returns {size} channels; a mask has 1 (a logit) or 2; declare it "
                f"segmentation if exactly one of {size} classes holds. If they are {size} masks, each is a task of its own: the "
                "same output, with columns = [0, 1], [1, 2] and so on"
            )
        if size == 2 and task.applied == "sigmoid" and task.threshold != 0.5:
            raise TaskError(
                f"task {task.name!r}: the network applies a sigmoid to each of two channels, so the larger one counts, and a "
                f"threshold of {task.threshold:g} means nothing; leave it out, or take one of the channels with columns = [1, 2]"
            )

    def misfit(self, size: int, activation: Activation) -> str | None:
        if size == 1 and activation != "sigmoid":
            return f"{activation} of one channel is always the same; one channel has sigmoid or none"
        return None

    def plane(self, task: Task) -> bool:
        return True

    def decoded_dtype(self, task: Task) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def value(self, task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
        if form == "decoded":
            return sampling.nearest(cast("Labels", sample)).astype(np.uint8, copy=False)
        found = sampling.bilinear(lead(task, floats(sample)))
        return np.asarray(found >= np.float32(level(task)), np.uint8)

    def unseen(self, task: Task, value: Array) -> float:
        return UNSEEN

    def prediction(self, task: Task, value: Array, placement: ImagePlacement) -> Prediction:
        unseen = UNSEEN if placement.partial else None
        return Prediction(task.name, task.kind, value, labels=task.labels, unseen=unseen)

    def words(self, prediction: Prediction) -> str:
        return with_share(_called(prediction.labels), f"{100 * share(np.asarray(prediction.value)):.1f} %")

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        value = np.asarray(prediction.value)
        label = prediction.labels[-1] if prediction.labels else None
        return {"shape": list(value.shape), "label": label, "share": round(share(value), 6)}

    def panel(self, task: Task, prediction: Prediction, image: Pixels) -> Panel:
        value = np.asarray(prediction.value)
        red, green, blue = (int(part) for part in palette(2)[1])
        pixels = image.copy()
        for places, colour in ((value == 1, (red, green, blue)), (value == UNSEEN, (0, 0, 0))):
            pixels[places] = np.round(BLEND * np.array(colour) + (1 - BLEND) * image[places]).astype(np.uint8)
        named = with_share(_called(task.labels), f"{100 * share(value):.0f} %")
        return Panel(pixels, Legend(((named, (red, green, blue)),)))


def lead(task: Task, raw: Map) -> Map:
    """Return the map ``(h, w)`` whose values from :func:`level` on are the mask.

    Args:
        task: with its size.
        raw: the network's own output for one image, ``(C, h, w)``; of one channel also ``(h, w)``.
    """
    if task.size == 1:
        return raw.reshape(raw.shape[-2:])
    positive: Map = raw[1]
    return positive if task.applied == "softmax" else positive - raw[0]


def level(task: Task) -> float:
    """Return where the mask begins: the threshold as the network's output has it, a probability, a logit, or no difference."""
    if task.size == 2 and task.applied == "sigmoid":
        return 0.0
    return task.threshold if task.gives_probabilities else math.log(task.threshold / (1 - task.threshold))


def share(value: Array) -> float:
    """Return the share of the mask among the pixels that the network has seen."""
    seen = int(np.count_nonzero(value != UNSEEN))
    return int(np.count_nonzero(value == 1)) / max(seen, 1)


def _called(labels: tuple[str, ...]) -> str:
    return labels[-1] if labels else "mask"


KIND = Mask()
