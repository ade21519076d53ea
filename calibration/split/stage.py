"""The parts of one graph of a bundle: cut, proven, compared, and described for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.calibration.data.images import batches
from mtl_deploy.runtime.bundle.artifact import Artifact, Part
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.writing import write_file

from .cut import PartFile, split
from .measured import borders, compare
from .proof import prove

FOLDER = "split"
_TIMED = ("fp32", "int8-cpu")  # what a CPU computes as it is
_IMAGES = 3
Costs = Mapping[frozenset[str], tuple[int, int]]
"""Parameters and multiply-adds of each part, by the tasks that need it."""
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """A graph in parts.

    Attributes:
        parts: the manifest's entries, in the order in which they run.
        contents: their files.
        record: how they compare with the whole graph.
    """

    parts: tuple[Part, ...]
    contents: tuple[bytes, ...]
    record: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write the parts into a bundle's folder."""
        for part, content in zip(self.parts, self.contents, strict=True):
            write_file(folder, part.path, content)


def part_paths(precision: str, parts: Sequence[PartFile]) -> list[str]:
    """Return the path of each part in the bundle."""
    return [f"{FOLDER}/{precision}/{part.name}.onnx" for part in parts]


def cut_graph(
    whole: bytes,
    artifact: Artifact,
    preprocessing: Preprocessing,
    images: Sequence[Images],
    costs: Costs,
    *,
    threads: int | None,
    floors: Mapping[str, float] | None = None,
) -> Cut:
    """Cut a shared graph into parts, prove that they are the whole, and run both.

    Args:
        whole: the ``.onnx`` file.
        artifact: its entry in the manifest.
        preprocessing: of the bundle.
        images: ``(N, H, W, C) uint8``, sets of different sizes, the first of the default size.
        costs: of the parts; those of another precision are the same.
        threads: of ONNX Runtime; None: one per core.
        floors: see :func:`~.measured.compare`.

    Raises:
        OptionError: the tasks share nothing.
        VerificationError: the parts do not compute what the graph computes.
    """
    files = split(whole)
    paths = part_paths(artifact.precision, files)
    prove(whole, [(path, part.content) for path, part in zip(paths, files, strict=True)])
    batch = artifact.batch_min if artifact.batch_min == artifact.batch_max else None
    count = batch or _IMAGES
    pieces = [next(batches(_enough(each, count), preprocessing, count)) for each in images]
    found = borders(files, pieces[0], batch, threads)
    timed = pieces[0][: batch or 1] if artifact.precision in _TIMED else None
    beside = compare(whole, files, pieces, artifact.precision, threads=threads, floors=floors, timed=timed)
    made = []
    for path, part in zip(paths, files, strict=True):
        parameters, work = costs[frozenset(part.tasks)]
        made.append(
            Part(
                path=path,
                role="part",
                tasks=part.tasks,
                precision=artifact.precision,
                backend=artifact.backend,
                batch_min=artifact.batch_min,
                batch_max=artifact.batch_max,
                opset=artifact.opset,
                sha256=hashlib.sha256(part.content).hexdigest(),
                size_bytes=len(part.content),
                parameters=parameters,
                multiply_adds=work,
                inputs=tuple(found[name] for name in part.inputs),
                outputs=tuple(found[name] for name in part.outputs),
            )
        )
    return Cut(tuple(made), tuple(part.content for part in files), beside.to_dict())


def costs_of(parts: Sequence[Part], precision: str = "fp32") -> dict[frozenset[str], tuple[int, int]]:
    """Return the costs of the graphs of a precision that a manifest has."""
    return {
        frozenset(part.tasks): (part.parameters, part.multiply_adds)
        for part in parts
        if (part.precision, part.backend) == (precision, "onnxruntime")
    }


def _enough(images: Images, count: int) -> Images:
    """Return so many images; the first ones again where there are fewer."""
    return np.resize(images, (count, *images.shape[1:])) if len(images) < count else images[:count]
