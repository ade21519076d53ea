"""Verification: each graph is compared with the PyTorch network, on the same images, task by task.

How errors are judged, and why, is explained in :mod:`mtl_deploy.export.verification.tensor_errors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.graph.sizes import images_at_once
from mtl_deploy.export.network.inputs import Images, network_input
from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.bundle.verification import Row
from mtl_deploy.runtime.errors import RunError, VerificationError

from .expected import Expected, held, with_log_odds
from .rows import require_passed
from .task_errors import Judged, TaskErrors, compared_at_once

__all__ = ["Row", "graph_input", "require_passed", "verify", "with_logits"]

_BATCHES = (
    1,
    3,
)  # the first batch sizes, then 8, or fewer of large maps. A graph that fixes its batch by mistake fails on them
_MOST = 8


def with_logits(content: bytes, signature: Signature) -> bytes:
    """Return an ``.onnx`` file that also outputs the values behind its outputs, which are verified too.

    The file's own bytes come first, unchanged. Protocol buffers merge when they are joined, and lists append
    (https://protobuf.dev/programming-guides/encoding, "Last One Wins").
    """
    import onnx

    addition = onnx.ModelProto()
    for task in signature.tasks:
        for name in held(task, signature)[1:]:
            kind = task.of
            shape = [
                "batch",
                *(task.shape if kind.keeps_shape else (task.size, *([None, None] if kind.of_maps else []))),
            ]
            addition.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    added: bytes = addition.SerializeToString()
    return content + added


def verify(
    path: str,
    backend: Backend,
    signature: Signature,
    samples: Sequence[tuple[Images, Expected]],
    *,
    tolerance: float,
    batch: int | None,
    precision: str = "fp32",
) -> list[Row]:
    """Run a graph on images and compare it with what PyTorch gave, task by task.

    Only one batch of outputs is held at a time, and of large maps few are compared at once.

    If an image would make a task fail and its float64 answer is not known yet, it is computed, and the image is judged again.

    Args:
        path: the artifact's path in the bundle.
        backend: the artifact, loaded :func:`with_logits`.
        signature: the artifact's own (one task for a separate model).
        samples: images ``(N, H, W, C) uint8`` of a size that the graph takes, with what PyTorch gave for them; several if
            the graph takes several sizes.
        tolerance: the error allowed, as a share of the spread.
        batch: the only batch size that the graph takes; None if it takes any, and several are tried.
        precision: how errors are judged: ``fp32`` by the largest of each image, others by the root mean square.
    """
    return [judged.row for judged in judge(path, backend, signature, samples, tolerance, batch, precision)]


def judge(
    path: str,
    backend: Backend,
    signature: Signature,
    samples: Sequence[tuple[Images, Expected]],
    tolerance: float,
    batch: int | None,
    precision: str,
) -> list[Judged]:
    """As :func:`verify`, with each image's errors beside the row."""
    found = _judge_once(path, backend, signature, samples, tolerance, batch, precision)
    doubtful = {place for judged in found if not judged.row.passed for place in judged.unproven}
    if not doubtful:
        return found
    for number, (_, expected) in enumerate(samples):
        places = sorted(place for which, place in doubtful if which == number)
        if places and expected.refine is not None:
            expected.refine(places)
    return _judge_once(path, backend, signature, samples, tolerance, batch, precision)


def _judge_once(
    path: str,
    backend: Backend,
    signature: Signature,
    samples: Sequence[tuple[Images, Expected]],
    tolerance: float,
    batch: int | None,
    precision: str,
) -> list[Judged]:
    names = [name for task in signature.tasks for name in held(task, signature)]
    errors = {task.name: TaskErrors(task, signature) for task in signature.tasks}
    most = images_at_once(None, signature, _MOST)
    size = compared_at_once(signature)
    for number, (images, expected) in enumerate(samples):
        start = 0
        for piece in _batches(images, batch, most):
            actual = _run(backend, piece, signature, names)
            for first in range(0, len(piece), size):
                some = {name: array[first : first + size] for name, array in actual.items()}
                place = start + first
                for task in signature.tasks:
                    stop = place + len(some[task.name])
                    errors[task.name].add(with_log_odds(task, some), expected, place, stop, number)
            start += len(piece)
    return [errors[task.name].judged(path, tolerance, precision) for task in signature.tasks]


def _run(backend: Backend, images: Images, signature: Signature, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Run a graph.

    Raises:
        VerificationError: it takes images of the default size only, although sizes are free.
    """
    preprocessing = signature.preprocessing
    try:
        return backend.run({INPUT_NAME: graph_input(images, preprocessing)}, names)
    except RunError as error:
        height, width = images.shape[1:3]
        if preprocessing.source is not None or (height, width) == (preprocessing.height, preprocessing.width):
            raise
        raise VerificationError(
            f"the graph does not take images of {height}x{width}, beside the default size of "
            f"{preprocessing.height}x{preprocessing.width}: {error}. The exporter has fixed a size there, as it does for adaptive "
            "pooling to more than one place; leave out --dynamic-size, or replace that layer"
        ) from error


def graph_input(images: Images, preprocessing: Preprocessing) -> npt.NDArray[Any]:
    """Turn ``(N, H, W, C) uint8`` into what the deployed graph takes."""
    if preprocessing.input == "uint8":
        return np.ascontiguousarray(images)
    array: npt.NDArray[Any] = network_input(images, preprocessing).numpy()
    return array


def _batches(images: Images, batch: int | None, most: int) -> Iterator[Images]:
    start = 0
    sizes = iter(_BATCHES)
    while start < len(images):
        size = batch or next(sizes, most)
        yield images[start : start + size]
        start += size
