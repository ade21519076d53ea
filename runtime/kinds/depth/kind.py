"""One value per pixel: raw * scale + offset, interpolated, and clipped where the task has a range."""

from __future__ import annotations

import math

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.bundle.signature import Outputs
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError
from mtl_deploy.runtime.kinds.dense import DenseKind, floats
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.predictions.drawing import Panel, Pixels, Scale
from mtl_deploy.runtime.predictions.sampling import Sampling
from mtl_deploy.runtime.predictions.summary import depth_range
from mtl_deploy.runtime.show.colours import of_numbers, value_range


class Depth(DenseKind):
    """Depth ``(H, W) float32`` in the task's unit."""

    name = "depth"
    called = "depth"
    takes = DenseKind.takes | {"unit", "scale", "offset", "valid_range"}
    example = "depth:metres"

    def check(self, task: Task) -> None:
        if task.valid_range is not None:
            low, high = task.valid_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise TaskError(
                    f"task {task.name!r}: valid_range {low:g}, {high:g}: give the least and the greatest depth, two finite "
                    "numbers, the least first"
                )

    def check_size(self, task: Task, size: int) -> None:
        if size != 1:
            raise TaskError(
                f"task {task.name!r} is depth but the network returns {size} channels; depth is one value per pixel"
            )

    def plane(self, task: Task) -> bool:
        return True

    def value(self, task: Task, sample: Array, form: Outputs, sampling: Sampling) -> Array:
        values = floats(sample).reshape(sample.shape[-2:])  # raw depth may have a channel
        if form == "decoded" and sampling.identity:
            return values
        if form == "logits" and (task.scale, task.offset) != (1.0, 0.0):
            values = values * np.float32(task.scale) + np.float32(task.offset)
        values = sampling.bilinear(values)
        if task.valid_range is None:
            return values
        least, greatest = task.valid_range
        return np.clip(values, np.float32(least), np.float32(greatest))

    def unseen(self, task: Task, value: Array) -> float:
        return math.nan

    def words(self, prediction: Prediction) -> str:
        found = depth_range(np.asarray(prediction.value))
        if found is None:
            return "no finite depth"
        least, median, greatest = found
        unit = f" {prediction.unit}" if prediction.unit else ""
        return f"{least:.3g} to {greatest:.3g}{unit}, median {median:.3g}"

    def to_dict(self, prediction: Prediction) -> dict[str, object]:
        value = np.asarray(prediction.value)
        found = depth_range(value)
        numbers: tuple[float | None, ...] = (None, None, None) if found is None else found
        named = dict(zip(("min", "median", "max"), numbers, strict=True))
        return {"shape": list(value.shape)} | named | {"unit": prediction.unit}

    def panel(self, task: Task, prediction: Prediction, image: Pixels) -> Panel:
        value = np.asarray(prediction.value)
        low, high = value_range(value)
        return Panel(of_numbers(value, low, high), Scale(low, high, task.unit))


KIND = Depth()
