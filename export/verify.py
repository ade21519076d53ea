"""Verification: each graph beside the PyTorch network, on the same images, a task at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.backend import Backend
from mtl_deploy.runtime.errors import VerificationError
from mtl_deploy.runtime.preprocessing import Preprocessing
from mtl_deploy.runtime.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.tasks import Task

from .expected import Expected, Images, Outputs, compared, network_input, upsampled

_BATCHES = (1, 3)  # the first ones; then eights. A graph that fixes its batch by mistake fails on them


@dataclass(frozen=True)
class Row:
    """How one artifact does on one task.

    Attributes:
        artifact: path in the bundle.
        task: the task's name.
        samples: number of images.
        max_error: largest absolute difference of an output value, in the output's unit. Of class indices: the largest margin,
            in logits, by which the network prefers its own class to the one that a pixel got; near ties may fall either way. Of
            unit vectors: the difference times the length that the network gave the vector, since a short one hardly points.
        mean_error: mean absolute difference, of class indices the mean margin.
        tolerance: what ``max_error`` may not exceed.
        agreement: share of images, of a segmentation of pixels, on which both choose the same class; None where there are none.
        logit_error: largest absolute difference of the logits behind probabilities, which saturate and would hide it, or of the raw
            map behind a dense output; None where the output is the network's own.
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


def with_logits(content: bytes, signature: Signature) -> bytes:
    """Return an ``.onnx`` file that gives, besides its outputs, the logits behind its probabilities and the maps behind dense ones.

    The file's own bytes come first, unchanged. Protocol buffers merge when they are joined, and lists append
    (https://protobuf.dev/programming-guides/encoding, "Last One Wins").
    """
    import onnx

    addition = onnx.ModelProto()
    for task in signature.tasks:
        for name in compared(task, signature)[1:]:
            shape = ["batch", task.size, *([None, None] if task.dense else [])]
            addition.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    added: bytes = addition.SerializeToString()
    return content + added


def verify(
    path: str,
    backend: Backend,
    signature: Signature,
    samples: Sequence[tuple[Images, Expected]],
    *,
    tolerance: Callable[[Task], float],
    batch: int | None,
) -> list[Row]:
    """Run a graph on images and compare it with what PyTorch gave, task by task. A batch's outputs are held at a time.

    Args:
        path: the artifact's path in the bundle.
        backend: the artifact, loaded :func:`with_logits`.
        signature: the artifact's own (one task for a separate model).
        samples: images ``(N, H, W, 3) uint8, RGB`` of a size that the graph takes, with what PyTorch gave for them; several where
            the graph takes several sizes.
        tolerance: relative, by task, see :func:`~mtl_deploy.export.options.tolerance_of`.
        batch: the batch that the graph insists on; None where it takes any, and is tried at several.
    """
    names = [name for task in signature.tasks for name in compared(task, signature)]
    comparisons = {task.name: Comparison(task, signature) for task in signature.tasks}
    for images, expected in samples:
        start = 0
        for piece in _batches(images, batch):
            actual = backend.run({INPUT_NAME: graph_input(piece, signature.preprocessing)}, names)
            for task in signature.tasks:
                comparisons[task.name].add(actual, expected.outputs(task, start, start + len(piece)))
            start += len(piece)
    return [comparisons[task.name].row(path, tolerance(task)) for task in signature.tasks]


def graph_input(images: Images, preprocessing: Preprocessing) -> npt.NDArray[Any]:
    """Turn ``(N, H, W, 3) uint8, RGB`` into what the deployed graph takes."""
    if preprocessing.input == "uint8":
        return np.ascontiguousarray(images)
    array: npt.NDArray[Any] = network_input(images, preprocessing).numpy()
    return array


def _batches(images: Images, batch: int | None) -> Iterator[Images]:
    start = 0
    sizes = iter(_BATCHES)
    while start < len(images):
        size = batch or next(sizes, 8)
        yield images[start : start + size]
        start += size


class Comparison:
    """The errors of one task, gathered batch by batch."""

    def __init__(self, task: Task, signature: Signature) -> None:
        self._task, self._signature = task, signature
        self._output, *self._logits = compared(task, signature)
        self._samples = self._values = self._choices = self._alike = 0
        self._largest = self._sum = self._scale = 0.0
        self._logit_error = self._logit_scale = 0.0

    def add(self, actual: Mapping[str, Outputs], expected: Mapping[str, Outputs]) -> None:
        """Compare what a graph gave on some images with what it must give, by the names of :func:`compared`."""
        found, wanted = actual[self._output], expected[self._output]
        if chooses(self._task, self._signature):
            difference = self._margin(found, wanted, expected[self._logits[0]])
        else:
            difference = np.abs(found.astype(np.float64) - wanted)
            if self._task.kind == "normals" and self._logits:
                difference *= np.linalg.norm(upsampled(self._task, expected[self._logits[0]]), axis=1, keepdims=True)
            self._scale = max(self._scale, float(np.abs(wanted).max()))
        self._samples += len(wanted)
        self._values += difference.size
        self._largest = float(np.maximum(self._largest, difference.max()))
        self._sum += float(difference.sum())
        if self._task.kind not in ("regression", "depth", "normals"):
            self._agree(found, wanted)
        for name in self._logits:
            error = np.abs(actual[name].astype(np.float64) - expected[name]).max()
            self._logit_error = float(np.maximum(self._logit_error, error))
            self._logit_scale = max(self._logit_scale, float(np.abs(expected[name]).max()))

    def row(self, path: str, tolerance: float) -> Row:
        """Return the result; ``tolerance`` is relative."""
        scale = max(self._scale, LEAST_SCALE)
        if has_margins(self._task, self._signature):
            scale = 2 * max(self._logit_scale, LEAST_SCALE)  # one value may be too small, another too large
        elif self._logits and not self._task.dense:
            scale = 1.0
        return Row(
            artifact=path,
            task=self._task.name,
            samples=self._samples,
            max_error=self._largest,
            mean_error=self._sum / max(self._values, 1),
            tolerance=tolerance * scale,
            agreement=self._alike / self._choices if self._choices else None,
            logit_error=self._logit_error if self._logits else None,
            logit_tolerance=tolerance * max(self._logit_scale, LEAST_SCALE) if self._logits else None,
        )

    def _margin(self, found: Outputs, wanted: Outputs, logits: Outputs) -> Outputs:
        """Return how much the network prefers its class to the one found, a pixel; infinite for a class that there is not."""
        margin = np.zeros(wanted.shape)
        if found.shape != wanted.shape:
            return np.full(wanted.shape, np.inf)
        for place in np.flatnonzero((found != wanted).reshape(len(wanted), -1).any(axis=1)):
            values = upsampled(self._task, logits[place : place + 1])[0]
            rows, columns = np.nonzero(found[place] != wanted[place])
            got, best = found[place, rows, columns].astype(int), wanted[place, rows, columns].astype(int)
            known = (got >= 0) & (got < len(values))
            lost = values[best, rows, columns] - values[np.where(known, got, 0), rows, columns]
            margin[place, rows, columns] = np.where(known, lost, np.inf)
        return margin

    def _agree(self, found: Outputs, wanted: Outputs) -> None:
        decoded = self._signature.outputs == "decoded"
        same = classes(self._task, found, decoded) == classes(self._task, wanted, decoded)
        self._choices += same.size
        self._alike += int(np.count_nonzero(same))


LEAST_SCALE = 1e-3
"""What an error of raw values is relative to is their largest, but not less than this."""


def chooses(task: Task, signature: Signature) -> bool:
    """Return whether a task's output holds class indices."""
    return signature.outputs == "decoded" and task.kind == "segmentation" and task.argmax


def has_margins(task: Task, signature: Signature) -> bool:
    """Return whether errors of a task's output are judged by how sure the network is, see :func:`~.expected.margins`."""
    return chooses(task, signature) or (signature.outputs == "decoded" and task.kind == "normals")


def classes(task: Task, values: Outputs, decoded: bool) -> npt.NDArray[Any]:
    """Return the class that each row of values, or each pixel, chooses; of a binary task, whether it is the positive one.

    Args:
        task: a classification or segmentation.
        values: ``(N, size)``; of a segmentation ``(N, size, h, w)``, or the indices themselves.
        decoded: whether they are probabilities or, of a segmentation, what a decoded graph gives; logits otherwise.
    """
    if task.kind == "segmentation" and decoded and task.argmax:
        return values
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
