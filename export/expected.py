"""What PyTorch says that a deployed graph must give: raw outputs held once, decoded a few images at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.preprocessing import Preprocessing
from mtl_deploy.runtime.signature import Signature
from mtl_deploy.runtime.tasks import MANY_CLASSES, Task

from .borders import LOGITS_SUFFIX, keeps_logits
from .dense import SHORTEST, upsamples

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Outputs = npt.NDArray[Any]
Forward = Callable[["torch.Tensor"], Mapping[str, "torch.Tensor"]]

BATCH = 8
_IN_MEMORY = 256 << 20  # bytes of a task's outputs; what is larger lies in a temporary file, which the system pages


@dataclass(frozen=True)
class Expected:
    """A network's outputs on some images.

    Attributes:
        signature: of the graph that must give them.
        raw: the network's own, by task: ``(N, size)``, of dense tasks ``(N, size, h, w)``.
    """

    signature: Signature
    raw: Mapping[str, Outputs]

    def __len__(self) -> int:
        """The number of images."""
        return len(next(iter(self.raw.values())))

    def outputs(self, task: Task, start: int = 0, stop: int | None = None) -> dict[str, Outputs]:
        """Return what a graph gives for a task on the images from ``start`` to ``stop``: by name, see :func:`compared`.

        Decoding is written here in torch, apart from the graph's own, so that a mistake in either shows.
        """
        import torch

        raw = self.raw[task.name][start:stop]
        output, *logits = compared(task, self.signature)
        decoded = raw
        if self.signature.outputs == "decoded":
            with torch.inference_mode():
                decoded = decode(task, torch.from_numpy(np.ascontiguousarray(raw))).numpy()
        return {output: decoded, **dict.fromkeys(logits, raw)}


def run_network(forward: Forward, signature: Signature, images: Images, batch: int | None) -> Expected:
    """Run the network on images.

    Args:
        forward: the network; takes ``(N, 3, H, W) float32``, normalised, and returns its raw output by task.
        signature: the deployed graph's.
        images: ``(N, H, W, 3) uint8, RGB``.
        batch: the batch that the network insists on; None where it takes any.
    """
    import torch

    raw: dict[str, Outputs] = {}
    size = batch or BATCH
    with torch.inference_mode():
        for start in range(0, len(images), size):
            tensor = network_input(images[start : start + size], signature.preprocessing)
            found = forward(tensor)
            for task in signature.tasks:
                rows = found[task.name].float()
                rows = rows if task.dense else rows.reshape(len(tensor), -1)
                if task.name not in raw:
                    raw[task.name] = _storage((len(images), *rows.shape[1:]), np.dtype(np.float32))
                raw[task.name][start : start + size] = rows.numpy()
    return Expected(signature, raw)


def network_input(images: Images, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn ``(N, H, W, 3) uint8, RGB`` into the normalised ``(N, 3, H, W) float32`` that the network was trained on."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous()


def logits_name(task: Task) -> str:
    """Return the name that the logits or the raw map of a decoded task have inside a graph."""
    return f"{task.name}{LOGITS_SUFFIX}"


def compared(task: Task, signature: Signature) -> tuple[str, ...]:
    """Return the tensors of a task that are verified: its output, and the logits behind it where there are any."""
    return (task.name, logits_name(task)) if keeps_logits(task, signature) else (task.name,)


def margins(task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
    """Return how sure each pixel of a decoded map is, ``(N, H', W')``: what an error of the raw map must reach to change it.

    Of a segmentation by how much the best class leads the second best, of normals the vector's length before it was made 1.

    Args:
        task: a segmentation or normals.
        raw: its raw map, ``(N, size, h, w)``.
    """
    parts = []
    for start in range(len(raw)):
        values = upsampled(task, raw[start : start + 1])
        if task.kind == "normals":
            found = np.linalg.norm(values, axis=1)
        else:
            second, first = np.moveaxis(np.partition(values, (-2, -1), axis=1)[:, -2:], 1, 0)
            found = first - second
        parts.append(np.minimum(found, np.finfo(np.float16).max).astype(np.float16))
    return np.concatenate(parts)


def upsampled(task: Task, raw: Outputs) -> Outputs:
    """Bring a raw map to the size that the decoded graph gives it at, ``(N, C, H', W')``."""
    import torch

    with torch.inference_mode():
        found: Outputs = _at_size(task, torch.from_numpy(np.ascontiguousarray(raw))).numpy()
    return found


def _storage(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Outputs:
    if prod(shape) * dtype.itemsize <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the file's handle, and the file its name
        return np.memmap(file, dtype, "w+", shape=shape)


def _at_size(task: Task, raw: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import interpolate

    if not upsamples(task):
        return raw
    size = [task.stride * side for side in raw.shape[2:]]
    found: torch.Tensor = interpolate(raw, size=size, mode="bilinear", align_corners=False)
    return found


def decode(task: Task, raw: torch.Tensor) -> torch.Tensor:
    """Return what the decoded graph gives for a task's raw output ``(N, size, ...) float32``."""
    import torch

    if task.kind == "regression":
        return raw * task.scale + task.offset
    if not task.dense:
        return raw.sigmoid() if raw.shape[1] == 1 else raw.softmax(-1)
    if task.kind == "depth":
        depth = _at_size(task, raw * task.scale + task.offset)[:, 0]
        return depth if task.valid_range is None else depth.clamp(*task.valid_range)
    values = _at_size(task, raw)
    if task.kind == "normals":
        lengths: torch.Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
        return values / lengths.clamp(min=SHORTEST)
    if not task.argmax:
        return values
    return values.argmax(1).to(torch.int32 if task.size > MANY_CLASSES else torch.uint8)
