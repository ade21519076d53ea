"""What kinds share whose raw output is a map ``(N, C, h, w)`` that the graph brings to the image's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import TaskError

from .base import ExportKind, Outputs, Scales, text
from .chain import Chain

if TYPE_CHECKING:
    import torch


class DenseKind(ExportKind):
    """Maps, whose channels are judged together.

    TensorRT 8.5 and later read the nodes: the scale of a ``Resize`` is a constant, and class indices become ``uint8`` by way of
    ``float32``, the only type that TensorRT casts to it.
    """

    def as_task(self, task: Task, value: torch.Tensor, given: tuple[int, ...]) -> torch.Tensor:
        if value.ndim not in (3, 4):
            raise TaskError(
                f"task {task.name!r} is {task.kind}, one map per image (N, C, h, w), but its output is {text(given)}; "
                "declare it regression, binary, multiclass or raw"
            )
        return value if value.ndim == 4 else value.unsqueeze(1)

    def changes(self, task: Task) -> bool:
        return True

    def scales(self, task: Task, *, decoded: bool) -> Scales:
        return Scales()


def upsamples(task: Task) -> bool:
    """Return whether a decoded graph interpolates a dense task's output to the image's size."""
    return task.upsample and task.stride > 1


def resize(task: Task, chain: Chain) -> None:
    """Add the interpolation, where there is one."""
    if upsamples(task):
        scales = chain.constant("scales", [1.0, 1.0, task.stride, task.stride])
        chain.add(
            "Resize", "resize", chain.last, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )


def at_size(task: Task, raw: torch.Tensor) -> torch.Tensor:
    """Return a raw map interpolated to the size of the decoded graph's output, ``(N, C, H', W')``."""
    from torch.nn.functional import interpolate

    if not upsamples(task):
        return raw
    size = [task.stride * side for side in raw.shape[2:]]
    found: torch.Tensor = interpolate(raw, size=size, mode="bilinear", align_corners=False)
    return found


def upsampled(task: Task, raw: Outputs) -> Outputs:
    """Return the same of an array."""
    import torch

    with torch.inference_mode():
        found: Outputs = at_size(task, torch.from_numpy(np.ascontiguousarray(raw))).numpy()
    return found


def in_half(margins: Outputs) -> npt.NDArray[np.float16]:
    """Return margins as float16, the largest of which stands for all larger ones."""
    return np.minimum(margins, np.finfo(np.float16).max).astype(np.float16)
