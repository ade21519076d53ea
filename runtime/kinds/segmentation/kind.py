"""One of several classes for each pixel: the one with the largest interpolated logit."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import MANY_CLASSES, Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.kinds.dense import DenseKind, floats
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.predictions.drawing import Panel, Pixels
from mtl_deploy.runtime.predictions.sampling import Labels, Map, Sampling
from mtl_deploy.runtime.predictions.summary import class_shares, with_share

from .legend import class_panel

UNSEEN_CLASS = 255
"""The class index of pixels that the network has not seen, as data sets call what has no class; -1 where indices are int32."""
NAMED = 3  # classes that a line names


class Segmentation(DenseKind):
    """Class indices ``(H, W) uint8``, or ``int32`` where there are more than 256 classes.

    A segmentation of 256 classes is int32 too where a crop left pixels out, as no index is free for them.
    """

    name = "segmentation"
    called = "segmentation"
    takes = DenseKind.takes | {"labels", "argmax"}
    of_classes = True
    example = "segmentation:wall,floor,box"

    def check_size(self, task: Task, size: int) -> None:
        if size < 2:
            raise TaskError(
                f"task {task.name!r} is segmentation but the network returns {size} channel; it needs one per class, two or more "
                "(for one value per pixel declare it depth)"
            )
        if task.labels and len(task.labels) != size:
            raise TaskError(f"task {task.name!r} has {len(task.labels)} labels but the network returns {size} channels")

    def plane(self, task: Task) -> bool:
        return task.argmax

    def decoded_dtype(self, task: Task) -> np.dtype[Any]:
        if not task.argmax:
            return np.dtype(np.float32)
        return np.dtype(np.int32 if task.size > MANY_CLASSES else np.uint8)

    def value(self, task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
        most = UNSEEN_CLASS if sampling.partial else MANY_CLASSES
        dtype = np.dtype(np.int32 if task.size > most else np.uint8)
        if form == "decoded" and task.argmax:
            return sampling.nearest(cast("Labels", sample)).astype(dtype, copy=False)
        return _argmax(floats(sample), sampling, dtype)

    def unseen(self, task: Task, value: Array) -> float:
        return unseen_class(value)

    def prediction(self, task: Task, value: Array, placement: ImagePlacement) -> Prediction:
        unseen = unseen_class(value) if placement.partial else None
        return Prediction(task.name, task.kind, value, labels=task.labels, unseen=unseen)

    def words(self, prediction: Prediction) -> str:
        shares = class_shares(np.asarray(prediction.value), prediction.labels, prediction.unseen)
        named = ", ".join(with_share(label, f"{100 * share:.1f} %") for label, share in list(shares.items())[:NAMED])
        return named + (f", {len(shares) - NAMED} more" if len(shares) > NAMED else "")

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        value = np.asarray(prediction.value)
        shares = class_shares(value, prediction.labels, prediction.unseen)
        return {"shape": list(value.shape), "shares": {label: round(share, 6) for label, share in shares.items()}}

    def panel(self, task: Task, prediction: Prediction, image: Pixels) -> Panel:
        return class_panel(task.labels, task.size, np.asarray(prediction.value), image)


def unseen_class(value: Array) -> int:
    """Return the index that pixels outside the crop have in a map of classes of this type."""
    return UNSEEN_CLASS if value.dtype == np.uint8 else -1


def _argmax(logits: Map, sampling: Sampling, dtype: npt.DTypeLike) -> Array:
    """Return the index of the largest interpolated logit, the first of equal ones. It holds the maps of two classes at a time."""
    best = sampling.bilinear(logits[0]).copy()
    found = np.zeros(best.shape, dtype)
    for index in range(1, len(logits)):
        plane = sampling.bilinear(logits[index])
        np.copyto(found, index, where=plane > best, casting="unsafe")
        np.maximum(best, plane, out=best)
    return found


KIND = Segmentation()
