"""Running a graph on images, to compare its outputs with others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.images import batches
from mtl_deploy.calibration.data.stored import Images
from mtl_deploy.calibration.graph.frugal import FrugalBackend
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME

Outputs = dict[str, npt.NDArray[Any]]
BATCH = 8


def run_graph(
    content: bytes,
    images: Images,
    preprocessing: Preprocessing,
    *,
    batch: int | None = None,
    most: int = BATCH,
    threads: int | None = None,
    outputs: Sequence[str] | None = None,
) -> Outputs:
    """Run a graph on the CPU.

    Args:
        content: an ``.onnx`` file of a bundle.
        images: ``(N, H, W, C) uint8``, at the graph's size.
        preprocessing: the graph's.
        batch: the only batch size that it accepts; None: any. The last image is repeated to fill the last batch.
        most: images at once where the graph accepts any number, see :mod:`mtl_deploy.calibration.graph.sizes`.
        threads: of ONNX Runtime; None: one per core.
        outputs: names of the wanted outputs; None: all.

    Returns:
        by output, ``(N, ...)``, as the graph gives it.
    """
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    with closing(FrugalBackend(content, threads=threads)) as backend:
        names = [spec.name for spec in backend.outputs] if outputs is None else list(outputs)
        for piece in batches(images, preprocessing, batch or most, least=batch or 1):
            for name, array in backend.run({INPUT_NAME: piece}, names).items():
                parts.setdefault(name, []).append(array)
    return {name: np.concatenate(pieces)[: len(images)] for name, pieces in parts.items()}
