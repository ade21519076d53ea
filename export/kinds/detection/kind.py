"""Boxes: the network's outputs merged into rows, which are decoded and, if asked for, suppressed in the graph.

Rows are verified one by one, before any suppression: each column of the network's own rows and of the decoded ones on its own
spread, as a raw tensor's. What a graph keeps is verified as a set, see :mod:`mtl_deploy.export.kinds.detection.keeping`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.kinds.base import ExportKind, Outputs
from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import OptionError, TaskError
from mtl_deploy.runtime.files.arrays import read_array
from mtl_deploy.runtime.files.reading import DocumentError, describe
from mtl_deploy.runtime.kinds.detection.kind import options_of
from mtl_deploy.runtime.kinds.detection.suppression import kept_rows

from .keeping import unlike
from .nodes import Steps, decode_nodes, row_nodes
from .priors import Priors, priors
from .reading import Reading, read
from .rows import as_rows, decoded_rows
from .suppression import suppression_nodes

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch


class Detection(ExportKind):
    """The raw output is rows ``(N, A, k)``, with the priors behind the network's own values."""

    merges_one = True

    # ---- form

    def repeats(self, task: Task, place: int) -> bool:
        parts = options_of(task).parts
        return (parts[place] if len(parts) > 1 else "") == "anchors"

    def completed(self, task: Task, values: Sequence[torch.Tensor], image: tuple[int, int]) -> Task:
        given = replace(options_of(task), input_size=image)
        reading = read(task.name, given, task.labels, [tuple(value.shape[1:]) for value in values])
        _priors(replace(task, options=reading.options), reading)
        _require_shares(task, reading, values)
        return replace(task, options=reading.options)

    def merged(self, task: Task, values: Sequence[torch.Tensor]) -> torch.Tensor:
        reading = _reading(task, [tuple(int(size) for size in value.shape[1:]) for value in values])
        return as_rows(reading, values, _priors(task, reading))

    def merge(self, task: Task, parts: Sequence[ir.Value], chain: Chain) -> None:
        shapes = []
        for part in parts:
            assert part.shape is not None  # the tracer sets it
            shapes.append(tuple(int(str(size)) for size in part.shape[1:]))
        reading = _reading(task, shapes)
        chain.last = row_nodes(Steps(chain, "rows"), reading, parts, _priors(task, reading))

    # ---- decoding

    def changes(self, task: Task) -> bool:
        return True

    def decode(self, task: Task, chain: Chain) -> None:
        given = options_of(task)
        height, width = given.input_size
        chain.last = decode_nodes(Steps(chain, "boxes"), chain.last, given, (height, width))
        if given.nms == "graph":
            chain.last = suppression_nodes(Steps(chain, "kept"), chain.last, given, task.shape[0])

    def operators(self, task: Task) -> frozenset[str]:
        given = options_of(task)
        return frozenset({"NonMaxSuppression"} if given.nms == "graph" and given.iou_threshold < 1 else ())

    def decoded(self, task: Task, raw: torch.Tensor) -> torch.Tensor:
        import torch

        given = options_of(task)
        found = _decoded(task, raw)
        if given.nms == "runtime":
            return found
        padded = torch.zeros(len(raw), given.top_k, given.columns.kept_size, dtype=raw.dtype)
        for image, rows in zip(padded, found.numpy(), strict=True):
            kept = kept_rows(rows, given)
            image[: len(kept)] = torch.from_numpy(kept)
        return padded

    # ---- verification

    def view(self, task: Task, array: Outputs) -> Outputs:
        return np.moveaxis(array, -1, 1)[..., None]

    def fixed(self, task: Task) -> int:
        return options_of(task).priors

    def by_margin(self, task: Task) -> bool:
        return options_of(task).nms == "graph"

    def lost(self, task: Task, found: Outputs, wanted: Outputs, raw: Outputs) -> Outputs:
        import torch

        rows = _decoded(task, torch.from_numpy(np.ascontiguousarray(raw))).numpy()
        return np.stack([unlike(kept, each, options_of(task)) for kept, each in zip(found, rows, strict=True)])

    def lost_margin(self, task: Task, found: Outputs, wanted: Outputs, margins: Outputs) -> Outputs:
        return np.stack([unlike(kept, each, options_of(task)) for kept, each in zip(found, margins, strict=True)])

    def margins(self, task: Task, raw: Outputs) -> npt.NDArray[np.float16]:
        """Return the decoded rows, from which :meth:`lost_margin` finds out what must be kept; two bytes are room enough."""
        import torch

        with np.errstate(over="ignore"):
            return _decoded(task, torch.from_numpy(np.ascontiguousarray(raw))).numpy().astype(np.float16)


def _decoded(task: Task, raw: torch.Tensor) -> torch.Tensor:
    height, width = options_of(task).input_size
    return decoded_rows(raw, options_of(task), (height, width))


def _reading(task: Task, shapes: Sequence[tuple[int, ...]]) -> Reading:
    return read(task.name, options_of(task), task.labels, shapes)


def _priors(task: Task, reading: Reading) -> Priors | None:
    given = options_of(task)
    height, width = given.input_size
    anchors = _from_file(task, Path(given.anchors_file)) if given.anchors_file else None
    return priors(task.name, reading, (height, width), anchors)


def _from_file(task: Task, file: Path) -> npt.NDArray[np.floating]:
    try:
        return read_array(file)
    except (OSError, DocumentError) as error:
        raise OptionError(
            f"task {task.name!r}: anchors_file {file}: {describe(error)}; save it with numpy.save"
        ) from error


def _require_shares(task: Task, reading: Reading, values: Sequence[torch.Tensor]) -> None:
    """Refuse scores that are no probabilities although the task says so."""
    if reading.options.scores != "probabilities":
        return
    rows = as_rows(reading, values, _priors(replace(task, options=reading.options), reading))
    for part in ("scores", "objectness"):
        found = rows[..., reading.options.columns.raw(part)]
        if found.numel() and not (float(found.min()) >= 0 and float(found.max()) <= 1):
            raise TaskError(
                f"task {task.name!r}: its {part} are from {float(found.min()):.3g} to {float(found.max()):.3g}, so they are no "
                'probabilities; say scores = "sigmoid" or "softmax"'
            )


KIND = Detection()
