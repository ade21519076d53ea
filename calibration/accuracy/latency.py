"""What layers in higher precision cost in time: two graphs in turn, on this processor."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.images import batches
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME

_ROUNDS, _SETTLING = 30, 5


def latency_ratio(
    graph: bytes,
    base: bytes,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    batch: int | None,
    threads: int | None,
) -> float:
    """Return how many times as long a graph takes as another: the median over rounds in which both run, one after the other.

    Args:
        graph: an ``.onnx`` file.
        base: what it is compared with.
        images: ``(N, H, W, 3) uint8, RGB``; as many as make a batch are used.
        preprocessing: of both.
        batch: the only batch that both take; None: 1 is used.
        threads: of ONNX Runtime; None: one per core.
    """
    piece = next(batches(images[: batch or 1], preprocessing, batch or 1))
    with ExitStack() as stack:
        backends = [
            stack.enter_context(
                closing(OnnxRuntimeBackend(lambda c=content: c, providers=["CPU"], threads=threads, spinning=False))  # type: ignore[misc]
            )
            for content in (graph, base)
        ]
        names = [spec.name for spec in backends[0].outputs]
        ratios = []
        for turn in range(_ROUNDS + _SETTLING):
            seconds = [0.0, 0.0]
            for position in (0, 1) if turn % 2 == 0 else (1, 0):
                started = time.perf_counter()
                backends[position].run({INPUT_NAME: piece}, names)
                seconds[position] = time.perf_counter() - started
            ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios[_SETTLING:]))
