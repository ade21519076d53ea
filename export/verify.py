"""Verification: each graph beside the PyTorch network, on the same images, a task at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.backend import Backend
from mtl_deploy.runtime.errors import VerificationError
from mtl_deploy.runtime.preprocessing import Preprocessing
from mtl_deploy.runtime.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.tasks import Task

from .borders import LOGITS_SUFFIX

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]
Forward = Callable[["torch.Tensor"], Mapping[str, "torch.Tensor"]]

_BATCHES = (1, 3)  # the first ones; then eights. A graph that fixes its batch by mistake fails on them


@dataclass(frozen=True)
class Row:
    """How one artifact does on one task.

    Attributes:
        artifact: path in the bundle.
        task: the task's name.
        samples: number of images.
        max_error: largest absolute difference of an output value, in the output's unit.
        mean_error: mean absolute difference.
        tolerance: what ``max_error`` may not exceed.
        agreement: share of images on which both choose the same class; None for a regression.
        logit_error: largest absolute difference of the logits behind probabilities, which saturate and would hide it; None where
            the output is the network's own.
        logit_tolerance: what ``logit_error`` may not exceed.
    """

    artifact: str
    task: str
    samples: int
    max_error: float
    mean_error: float
    tolerance: float
    agreement: float | None
    logit_error: float | None = None
    logit_tolerance: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the errors are within tolerance; a NaN is not."""
        return self.excess <= 1

    @property
    def excess(self) -> float:
        """The larger of the errors, as a multiple of what is allowed; NaN where one is."""
        excess = self.max_error / self.tolerance
        if self.logit_error is None or self.logit_tolerance is None:
            return excess
        return float(np.maximum(excess, self.logit_error / self.logit_tolerance))

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's record."""
        return asdict(self)


def expected_outputs(
    forward: Forward, signature: Signature, images: Images, batch: int | None
) -> dict[str, FloatArray]:
    """Compute with PyTorch what a deployed graph must give.

    Preprocessing and decoding are written here in torch, apart from the graph's own, so that a mistake in either shows.

    Args:
        forward: the network; takes ``(N, 3, H, W) float32``, normalised, and returns its raw output by task.
        signature: the deployed graph's.
        images: ``(N, H, W, 3) uint8, RGB``.
        batch: the batch that the network insists on; None where it takes any.

    Returns:
        by task, ``(N, size) float32``; for probabilities their logits too, under :func:`logits_name`.
    """
    import torch

    parts: dict[str, list[FloatArray]] = {name: [] for task in signature.tasks for name in _compared(task, signature)}
    with torch.inference_mode():
        for start in range(0, len(images), batch or 8):
            tensor = network_input(images[start : start + (batch or 8)], signature.preprocessing)
            raw = forward(tensor)
            for task in signature.tasks:
                column = raw[task.name].reshape(len(tensor), -1).float()
                parts[task.name].append(_decode(task, column, signature.outputs == "decoded").numpy())
                for name in _compared(task, signature)[1:]:
                    parts[name].append(column.numpy())
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def network_input(images: Images, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn ``(N, H, W, 3) uint8, RGB`` into the normalised ``(N, 3, H, W) float32`` that the network was trained on."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous()


def _decode(task: Task, raw: torch.Tensor, decoded: bool) -> torch.Tensor:
    if not decoded:
        return raw
    if task.kind == "regression":
        return raw * task.scale + task.offset
    return raw.sigmoid() if raw.shape[1] == 1 else raw.softmax(-1)


def logits_name(task: Task) -> str:
    """Return the name that the logits of a decoded task have inside a graph."""
    return f"{task.name}{LOGITS_SUFFIX}"


def _compared(task: Task, signature: Signature) -> tuple[str, ...]:
    probabilities = signature.outputs == "decoded" and task.kind != "regression"
    return (task.name, logits_name(task)) if probabilities else (task.name,)


def with_logits(content: bytes, signature: Signature) -> bytes:
    """Return an ``.onnx`` file that gives, besides its outputs, the logits behind its probabilities.

    The file's own bytes come first, unchanged. Protocol buffers merge when they are joined, and lists append
    (https://protobuf.dev/programming-guides/encoding, "Last One Wins").
    """
    import onnx

    addition = onnx.ModelProto()
    for task in signature.tasks:
        for name in _compared(task, signature)[1:]:
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", task.size])
            addition.graph.output.append(value)
    added: bytes = addition.SerializeToString()
    return content + added


def verify(
    path: str,
    backend: Backend,
    signature: Signature,
    images: Images,
    expected: Mapping[str, FloatArray],
    *,
    tolerance: float,
    batch: int | None,
) -> list[Row]:
    """Run a graph on the images and compare it with what PyTorch gave, task by task.

    Args:
        path: the artifact's path in the bundle.
        backend: the artifact, loaded :func:`with_logits`.
        signature: the artifact's own (one task for a separate model).
        images: ``(N, H, W, 3) uint8, RGB``, at the graph's size.
        expected: :func:`expected_outputs`' result.
        tolerance: relative, see :data:`~mtl_deploy.export.options.TOLERANCES`.
        batch: the batch that the graph insists on; None where it takes any, and is tried at several.
    """
    names = [name for task in signature.tasks for name in _compared(task, signature)]
    parts: dict[str, list[FloatArray]] = {name: [] for name in names}
    for piece in _batches(images, batch):
        for name, array in backend.run({INPUT_NAME: graph_input(piece, signature.preprocessing)}, names).items():
            parts[name].append(np.asarray(array, np.float32))
    actual = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    return [_compare(path, task, signature, actual, expected, tolerance) for task in signature.tasks]


def graph_input(images: Images, preprocessing: Preprocessing) -> npt.NDArray[Any]:
    """Turn ``(N, H, W, 3) uint8, RGB`` into what the deployed graph takes."""
    if preprocessing.input == "uint8":
        return np.ascontiguousarray(images)
    array: FloatArray = network_input(images, preprocessing).numpy()
    return array


def _batches(images: Images, batch: int | None) -> Iterator[Images]:
    start = 0
    sizes = iter(_BATCHES)
    while start < len(images):
        size = batch or next(sizes, 8)
        yield images[start : start + size]
        start += size


def _compare(
    path: str,
    task: Task,
    signature: Signature,
    actual: Mapping[str, FloatArray],
    expected: Mapping[str, FloatArray],
    tolerance: float,
) -> Row:
    output, *logits = _compared(task, signature)
    decoded = signature.outputs == "decoded"
    difference = np.abs(actual[output].astype(np.float64) - expected[output])
    agreement = None
    if task.kind != "regression":
        same = classes(task, actual[output], decoded) == classes(task, expected[output], decoded)
        agreement = float(np.mean(same))
    row = Row(
        artifact=path,
        task=task.name,
        samples=len(actual[output]),
        max_error=float(difference.max()),
        mean_error=float(difference.mean()),
        tolerance=tolerance * (1.0 if logits else _scale(expected[output])),
        agreement=agreement,
    )
    for name in logits:
        error = float(np.abs(actual[name].astype(np.float64) - expected[name]).max())
        row = replace(row, logit_error=error, logit_tolerance=tolerance * _scale(expected[name]))
    return row


def _scale(expected: FloatArray) -> float:
    """Return what an error of raw values is relative to: their largest, but not less than a thousandth."""
    return max(float(np.abs(expected).max()), 1e-3)


def classes(task: Task, values: FloatArray, decoded: bool) -> npt.NDArray[Any]:
    """Return the class that each row of values chooses; of a binary task, whether it is the positive one.

    Args:
        task: a classification.
        values: ``(N, size)``.
        decoded: whether they are probabilities; logits otherwise.
    """
    if values.shape[1] > 1:
        return np.asarray(values.argmax(axis=1))
    threshold = task.threshold if decoded else np.log(task.threshold / (1 - task.threshold))
    return np.asarray(values[:, 0] >= threshold)


def require_passed(rows: Sequence[Row]) -> None:
    """Raise where a row is out of tolerance.

    Raises:
        VerificationError: names every artifact and task that failed, with the figures.
    """
    failed = [row for row in rows if not row.passed]
    if failed:
        figures = "; ".join(
            f"{row.artifact}, task {row.task!r}: error {row.max_error:.3g} (allowed {row.tolerance:.3g}){_of_logits(row)}"
            for row in failed
        )
        raise VerificationError(f"no match with the PyTorch network: {figures}. Nothing was written")


def _of_logits(row: Row) -> str:
    if row.logit_error is None:
        return ""
    return f", of its logits {row.logit_error:.3g} (allowed {row.logit_tolerance:.3g})"
