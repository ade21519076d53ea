"""What a deployed graph must give, according to PyTorch: raw outputs are stored once and decoded a few images at a time.

The truth is the network in float64, on a few images, since that is slow. Its own float32 answers differ from it by the noise
floor; no graph can be expected to stay below that.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.stored import Images as ImageStack
from mtl_deploy.calibration.graph.sizes import images_at_once
from mtl_deploy.export.graph.borders import LOGITS_SUFFIX, keeps_logits
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.activation import log_odds
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.images.seen import seen_pixels

if TYPE_CHECKING:
    import torch

Outputs = npt.NDArray[Any]
Forward = Callable[["torch.Tensor"], Mapping[str, "torch.Tensor"]]

BATCH = 4  # images at a time
_IN_MEMORY = 256 << 20  # bytes of a task's outputs; larger ones are in a temporary file, which the system pages


@dataclass(frozen=True)
class Expected:
    """A network's outputs on some images.

    Attributes:
        signature: of the graph that must give them.
        raw: the network's own in float32, by task: ``(N, size)``, for dense tasks ``(N, size, h, w)``, for raw ones any rank.
        exact: the same in float64, for the images in ``known``; empty if the network does not run in float64.
        known: ``(N,) bool``: the images whose float64 answer is known.
        refine: computes it for more of them, given their positions; None if the network does not run in float64.
        noise: by tensor ``(N, K)``: how far another float32 run of the network was from its own, see
            :mod:`mtl_deploy.export.verification.verify`. It stands for
            the noise floor of images whose float64 answer is not known.
        parts: of tasks that several of the network's outputs make up, each of these on the first images, by
            :func:`~mtl_deploy.export.graph.parts.part_names`.
    """

    signature: Signature
    raw: Mapping[str, Outputs]
    exact: dict[str, Outputs] = field(default_factory=dict)
    known: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    refine: Callable[[Sequence[int]], None] | None = None
    noise: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    parts: Mapping[str, Outputs] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of images."""
        return len(next(iter(self.raw.values())))

    def first(self, count: int) -> Expected:
        """Return the same for the first ``count`` images alone, without what they could be asked later."""
        raw = {name: rows[:count] for name, rows in self.raw.items()}
        exact = {name: rows[:count] for name, rows in self.exact.items()}
        return Expected(self.signature, raw, exact, self.known[:count])

    def outputs(
        self, task: Task, start: int = 0, stop: int | None = None, *, exact: bool = False
    ) -> dict[str, Outputs]:
        """Return what a graph must give for a task on the images from ``start`` to ``stop``, by the names of :func:`compared`.

        Decoding is written here in torch, independently of the graph's own, so that a mistake in either one shows.

        Args:
            task: one of the signature's.
            start: the first image.
            stop: the image after the last; None: all of them.
            exact: in float64 where that is known; for other images the float32 answer.
        """
        import torch

        raw = self.raw[task.name][start:stop]
        if exact and self.exact:
            places = self.known[start:stop].reshape(-1, *[1] * (raw.ndim - 1))
            raw = np.where(places, self.exact[task.name][start:stop], raw)
        output, *logits = held(task, self.signature)
        decoded = raw
        if self.signature.outputs == "decoded":
            with torch.inference_mode():
                decoded = decode(task, torch.from_numpy(np.ascontiguousarray(raw))).numpy()
        return with_log_odds(task, {output: decoded, **dict.fromkeys(logits, raw)})


EXACT = 8  # number of images that are run in float64, which takes several times as long


def run_network(
    forward: Forward, signature: Signature, images: ImageStack, batch: int | None, *, exactly: bool = True
) -> Expected:
    """Run the network on images in float32, and on the first few in float64 if it can.

    Args:
        forward: the network; takes ``(N, C, H, W) float32``, normalised, and returns its raw output by task. If it has
            ``in_float64``, that is the same network in double precision, and ``exact_images`` the number of images to run it on
            if that is not :data:`EXACT`.
        signature: of the deployed graph.
        images: ``(N, H, W, C) uint8``; of frames, the network gets what the runtime makes of them on a processor.
        batch: the only batch size that the network takes; None if it takes any.
        exactly: whether to run it in float64 at all.
    """
    parts: dict[str, Outputs] = {}
    raw = _answers(forward, signature, images, batch, np.float32, parts)
    double: Forward | None = getattr(forward, "in_float64", None) if exactly else None
    if double is None:
        return Expected(signature, raw, parts=parts)
    known = np.zeros(len(images), bool)
    exact = {name: _storage(rows.shape, np.dtype(np.float64)) for name, rows in raw.items()}

    def refine(places: Sequence[int]) -> None:
        whole = list(places) + [places[-1]] * (-len(places) % (batch or 1))
        found = _answers(double, signature, np.asarray(images[whole]), batch, np.float64)
        for name, rows in found.items():
            exact[name][whole] = rows
        known[whole] = True

    count = getattr(forward, "exact_images", None) or EXACT
    refine(range(min(len(images), -(-count // (batch or 1)) * (batch or 1))))
    return Expected(signature, raw, exact, known, refine, parts=parts)


def at_once(signature: Signature, batch: int | None) -> int:
    """Return how many images the network is asked for at a time.

    Args:
        signature: of the deployed graph.
        batch: the only batch size that the network takes; None if it takes any.
    """
    return batch or images_at_once(None, signature, BATCH)


def _answers(
    forward: Forward,
    signature: Signature,
    images: ImageStack,
    batch: int | None,
    dtype: type[np.floating[Any]],
    parts: dict[str, Outputs] | None = None,
) -> dict[str, Outputs]:
    import torch

    raw: dict[str, Outputs] = {}
    size = at_once(signature, batch)
    with torch.inference_mode():
        for start in range(0, len(images), size):
            pixels = seen_pixels(np.asarray(images[start : start + size]), signature.preprocessing)
            tensor = network_input(pixels, signature.preprocessing, double=dtype is np.float64)
            found = forward(tensor)
            if parts is not None and not parts:
                parts |= {name: value.numpy().copy() for name, value in found.items() if "#" in name}
            for task in signature.tasks:
                rows = found[task.name].to(tensor.dtype)
                rows = rows if task.of.of_maps or task.of.keeps_shape else rows.reshape(len(tensor), -1)
                if task.name not in raw:
                    raw[task.name] = _storage((len(images), *rows.shape[1:]), np.dtype(dtype))
                raw[task.name][start : start + size] = rows.numpy()
    return raw


def logits_name(task: Task) -> str:
    """Return the name that the logits or the raw map of a decoded task have inside a graph."""
    return f"{task.name}{LOGITS_SUFFIX}"


def held(task: Task, signature: Signature) -> tuple[str, ...]:
    """Return the tensors of a task that a graph holds and that are verified: its output, and the logits behind it if it has any."""
    return (task.name, logits_name(task)) if keeps_logits(task, signature) else (task.name,)


def compared(task: Task, signature: Signature) -> tuple[str, ...]:
    """Return what is verified for a task: its output, and the logits behind it, computed by :func:`with_log_odds` if necessary."""
    held_here = held(task, signature)
    return (*held_here, logits_name(task)) if _has_log_odds(task) else held_here


def with_log_odds(task: Task, outputs: Mapping[str, Outputs]) -> dict[str, Outputs]:
    """Add the logits of a task whose network gives probabilities, computed from them in float64, under :func:`logits_name`.

    Both sides are brought back by the same function, see :func:`~mtl_deploy.runtime.bundle.activation.log_odds`: PyTorch's
    logits before
    the network's own activation are in no output, and a graph's may have another form (a slice, a sum of several). A softmax's are
    compared up to what all classes share, which no output depends on.
    """
    if not _has_log_odds(task):
        return dict(outputs)
    return {**outputs, logits_name(task): log_odds(task.applied, outputs[task.name])}


def _has_log_odds(task: Task) -> bool:
    return kind_of(task).has_log_odds(task)


def _storage(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Outputs:
    if prod(shape) * dtype.itemsize <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the mapping outlives the file handle, and the file outlives its name
        return np.memmap(file, dtype, "w+", shape=shape)


def decode(task: Task, raw: torch.Tensor) -> torch.Tensor:
    """Return what the decoded graph gives for a task's raw output ``(N, size, ...) float32``."""
    return kind_of(task).decoded(task, raw)
