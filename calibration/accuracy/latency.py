"""What layers in higher precision cost in time: two graphs run in turn on this CPU."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing

import numpy as np

from mtl_deploy.calibration.data.images import batches
from mtl_deploy.calibration.data.stored import Images
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME

_ROUNDS, _SETTLING = 30, 5


def latency_ratio(
    graph: bytes,
    base: bytes,
    images: Images,
    preprocessing: Preprocessing,
    *,
    batch: int | None,
    threads: int | None,
) -> float:
    """Return how many times as long one graph takes as another: the median of the ratio over rounds in which both run.

    Args:
        graph: an ``.onnx`` file.
        base: the ``.onnx`` file that it is compared with.
        images: ``(N, H, W, C) uint8``; the first batch of them is used.
        preprocessing: of both graphs.
        batch: the only batch size that both accept; None: 1 is used.
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
