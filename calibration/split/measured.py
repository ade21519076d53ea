"""Parts run beside the graph that they were cut from: that they give the same, and how much more work they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.backends.onnxruntime.parts import OnnxRuntimeParts, PartGraph
from mtl_deploy.runtime.bundle.artifact import Border
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.errors import VerificationError

from .cut import PartFile

_ROUNDS, _SETTLING, _LEAST, _LONGEST_S = 30, 5, 11, 10.0
_NOISE = {"fp32": 2.0**-20}
"""What the parts may differ by, as a share of a task's largest value, whatever its spread: a few roundings of its arithmetic."""
_NOISE_16 = 2.0**-9
"""The same of graphs with FP16 in them: a CPU computes these in float32, and rounds only at the borders of the parts."""
_SHARES = {"fp32": 1e-5}
_SHARE_16 = 1e-2
"""What they may differ by as a share of the spread."""
_FLOORS = 4.0
"""What they may differ by as a multiple of the reference's own error."""
_CLASSES = {"fp32": 1e-3}
_CLASSES_16 = 2e-2
"""The share of pixels that may fall to another side of a tie."""


def borders(parts: Sequence[PartFile], images: Array, batch: int | None, threads: int | None) -> dict[str, Border]:
    """Run the parts one after another and return what each tensor at their borders is.

    Args:
        parts: of a graph.
        images: prepared for the graph, one more than the smallest batch, or just the batch where it is fixed.
        batch: the only batch that the graph takes; None: any.
        threads: of ONNX Runtime; None: one per core.
    """
    least = batch or 1
    seen = [{INPUT_NAME: images[: least + further]} for further in ((0,) if batch else (0, 1))]
    for part in parts:
        reader = _reader(part.content)
        with closing(OnnxRuntimeBackend(reader, where=part.name, providers=["CPU"], threads=threads)) as backend:
            for values in seen:
                values |= backend.run({name: values[name] for name in part.inputs}, part.outputs)
    first, last = seen[0], seen[-1]
    return {
        name: Border(
            name,
            str(value.dtype),
            tuple(value.shape),
            tuple(size - before for size, before in zip(last[name].shape, value.shape, strict=True)),
        )
        for name, value in first.items()
    }


def _reader(content: bytes) -> Callable[[], bytes]:
    return lambda: content


@dataclass(frozen=True)
class Beside:
    """What a comparison found.

    Attributes:
        exact: whether all outputs were the same to the bit.
        largest: by task, the largest difference in the output's unit; of classes, the share that differs.
        ratio: how many times the whole graph's processor time the parts take: the median over pairs; None: it was not measured.
        whole_ms: the whole graph's median processor time.
        split_ms: that of the parts.
        pairs: how many pairs were timed.
    """

    exact: bool
    largest: dict[str, float]
    ratio: float | None = None
    whole_ms: float | None = None
    split_ms: float | None = None
    pairs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's record."""
        timed = {"ratio": self.ratio, "whole_ms": self.whole_ms, "split_ms": self.split_ms, "pairs": self.pairs}
        found = {"exact": self.exact, "largest_difference": self.largest}
        return found if self.ratio is None else found | timed


def compare(
    whole: bytes,
    parts: Sequence[PartFile],
    pieces: Sequence[Array],
    precision: str,
    *,
    threads: int | None,
    floors: Mapping[str, float] | None = None,
    timed: Array | None,
) -> Beside:
    """Run a graph and its parts on the same images, through the backends of the runtime, on this CPU.

    Args:
        whole: the ``.onnx`` file that was cut.
        parts: of it.
        pieces: batches that the graph takes, prepared for it.
        precision: of the graph.
        threads: of ONNX Runtime; None: one per core.
        floors: by task, an error that its reference has itself, in the output's unit.
        timed: a batch to measure with what the cut costs; None: it is not measured.

    Raises:
        VerificationError: a task's outputs differ by more than the noise of the arithmetic.
    """
    graphs = [PartGraph(_reader(part.content), part.name, part.tasks, part.inputs, part.outputs) for part in parts]
    with ExitStack() as stack:
        one: Backend = stack.enter_context(
            closing(OnnxRuntimeBackend(_reader(whole), providers=["CPU"], threads=threads, spinning=False))
        )
        other: Backend = stack.enter_context(
            closing(OnnxRuntimeParts(graphs, providers=["CPU"], threads=threads, spinning=False))
        )
        tasks = [spec.name for spec in one.outputs]
        exact, largest = _differences(one, other, tasks, pieces, precision, floors or {})
        if timed is None:
            return Beside(exact, largest)
        seconds = _seconds((one, other), tasks, timed)
    ratio = float(np.median([split / base for base, split in seconds]))
    whole_ms, split_ms = (float(np.median(each)) * 1e3 for each in zip(*seconds, strict=True))
    return Beside(exact, largest, ratio, whole_ms, split_ms, len(seconds))


def _differences(
    whole: Backend,
    parts: Backend,
    tasks: Sequence[str],
    pieces: Sequence[Array],
    precision: str,
    floors: Mapping[str, float],
) -> tuple[bool, dict[str, float]]:
    exact, largest = True, dict.fromkeys(tasks, 0.0)
    for piece in pieces:
        expected, found = (backend.run({INPUT_NAME: piece}, tasks) for backend in (whole, parts))
        for task in tasks:
            if np.array_equal(expected[task], found[task], equal_nan=expected[task].dtype.kind == "f"):
                continue
            exact = False
            difference, allowed = _difference(expected[task], found[task], precision, floors.get(task, 0.0))
            if not difference <= allowed:
                raise VerificationError(
                    f"the parts of {precision}.onnx differ from it: task {task!r} by {difference:.3g}, where {allowed:.3g} "
                    "is allowed"
                )
            largest[task] = max(largest[task], difference)
    return exact, largest


def _difference(expected: Array, found: Array, precision: str, floor: float) -> tuple[float, float]:
    """Return how far two outputs are apart, and how far they may be."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf"), 0.0
    if expected.dtype.kind != "f":
        return float(np.mean(expected != found)), _CLASSES.get(precision, _CLASSES_16)
    one, other = expected.astype(np.float64), found.astype(np.float64)
    apart = np.abs(other - one)
    largest = float(np.abs(one).max(initial=0.0))
    spread = float(np.std(one, axis=0).max(initial=0.0)) if len(one) > 1 else 0.0
    allowed = max(
        _SHARES.get(precision, _SHARE_16) * spread, _NOISE.get(precision, _NOISE_16) * largest, _FLOORS * floor
    )
    return float(apart.max(initial=0.0) if precision == "fp32" else np.sqrt(np.mean(apart**2))), allowed


def _seconds(backends: Sequence[Backend], tasks: Sequence[str], piece: Array) -> list[tuple[float, float]]:
    """Return the processor seconds of rounds in which both run, after some that settle caches and clocks.

    Processor time of all threads, as they do not spin: it is the work, and other programs change it little.
    """
    found: list[tuple[float, float]] = []
    begun = time.perf_counter()
    for turn in range(_ROUNDS + _SETTLING):
        seconds = [0.0, 0.0]
        for position in (0, 1) if turn % 2 == 0 else (1, 0):
            started = time.process_time()
            backends[position].run({INPUT_NAME: piece}, tasks)
            seconds[position] = max(time.process_time() - started, 1e-9)
        if turn >= _SETTLING:
            found.append((seconds[0], seconds[1]))
        if len(found) >= _LEAST and time.perf_counter() - begun > _LONGEST_S:
            break
    return found
