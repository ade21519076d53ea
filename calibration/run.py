"""Running graphs on images, to compare what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.onnxruntime_backend import OnnxRuntimeBackend
from mtl_deploy.runtime.preprocessing import Preprocessing
from mtl_deploy.runtime.signature import INPUT_NAME

from .images import batches

Outputs = dict[str, npt.NDArray[np.float32]]
_BATCH = 8


def run_graph(
    content: bytes,
    images: npt.NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    batch: int | None = None,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Outputs:
    """Run a graph on a processor.

    Args:
        content: an ``.onnx`` file of a bundle.
        images: ``(N, H, W, 3) uint8, RGB``, at the graph's size.
        preprocessing: the graph's.
        batch: the only batch that it takes; None: any. Images are repeated to fill the last one.
        threads: of ONNX Runtime; None: one a core.
        progress: told how far it is.

    Returns:
        by output, ``(N, size) float32``.
    """
    parts: dict[str, list[npt.NDArray[np.float32]]] = {}
    size = batch or _BATCH
    missing = -len(images) % size if batch else 0
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    with closing(OnnxRuntimeBackend(lambda: content, providers=["CPU"], threads=threads)) as backend:
        names = [spec.name for spec in backend.outputs]
        done = 0
        for piece in batches(padded, preprocessing, size):
            for name, array in backend.run({INPUT_NAME: piece}, names).items():
                parts.setdefault(name, []).append(np.asarray(array, np.float32))
            done += len(piece)
            progress(f"{min(done, len(images))} of {len(images)} images")
    return {name: np.concatenate(pieces)[: len(images)] for name, pieces in parts.items()}


def relative_error(
    expected: Mapping[str, npt.NDArray[np.float32]], found: Mapping[str, npt.NDArray[np.float32]]
) -> float:
    """Return the largest task's mean error, relative to the spread of its values: what ``auto`` makes small."""
    errors = []
    for name, values in expected.items():
        spread = float(np.mean(np.abs(values - values.mean(axis=0)))) or 1.0
        errors.append(float(np.mean(np.abs(found[name].astype(np.float64) - values))) / spread)
    return max(errors) if np.isfinite(errors).all() else float("inf")
