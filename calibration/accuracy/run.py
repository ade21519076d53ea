"""Running graphs on images, to compare what they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.images import batches
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME

Outputs = dict[str, npt.NDArray[Any]]
_BATCH = 8


def run_graph(
    content: bytes,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    batch: int | None = None,
    threads: int | None = None,
    outputs: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Outputs:
    """Run a graph on a processor.

    Args:
        content: an ``.onnx`` file of a bundle.
        images: ``(N, H, W, 3) uint8, RGB``, at the graph's size.
        preprocessing: the graph's.
        batch: the only batch that it takes; None: any. Images are repeated to fill the last one.
        threads: of ONNX Runtime; None: one a core.
        outputs: those wanted; None: all.
        progress: told how far it is.

    Returns:
        by output, ``(N, ...)``, as the graph gives it.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    size = batch or _BATCH
    missing = -len(images) % size if batch else 0
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    with closing(OnnxRuntimeBackend(lambda: content, providers=["CPU"], threads=threads)) as backend:
        names = [spec.name for spec in backend.outputs] if outputs is None else list(outputs)
        done = 0
        for piece in batches(padded, preprocessing, size):
            for name, array in backend.run({INPUT_NAME: piece}, names).items():
                parts.setdefault(name, []).append(array)
            done += len(piece)
            progress(f"{min(done, len(images))} of {len(images)} images")
    return {name: np.concatenate(pieces)[: len(images)] for name, pieces in parts.items()}
