"""Loading an ONNX file: read, checked, prepared, and run once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtl_deploy.runtime.errors import CheckpointError

from .entry import find_entry
from .graph import GivenGraph
from .reading import read_onnx
from .retyped import HALVES, WIDENED, holds, retyped
from .tidy import prepare

_HALF = (
    "the given graph computes in FP16 or BF16; here its weights are FP32, which holds each of them exactly, and the truth is what "
    "it computes without rounding in between"
)


@dataclass(frozen=True)
class LoadedGraph:
    """An ONNX file that runs.

    Attributes:
        graph: it.
        sha256: see :class:`~mtl_deploy.export.network.given.reading.GivenFile`.
        notes: what a reader of the bundle should know.
    """

    graph: GivenGraph
    sha256: str
    notes: tuple[str, ...]


def load_graph(file: Path, size: tuple[int, int], threads: int | None) -> LoadedGraph:
    """Load the graph that an ONNX file holds.

    Args:
        file: its path.
        size: height and width in pixels that it is tried at, if it fixes none.
        threads: for ONNX Runtime; None: one per core.

    Raises:
        CheckpointError: it cannot be used; the message says why and what to do.
        TraceError: it fails on images.
    """
    where = str(file)
    found = read_onnx(file)
    notes = list(prepare(found.model, where))
    model = found.model
    if holds(model, HALVES):
        try:
            model = retyped(model, WIDENED)
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{where}: a weight is not of the shape that it states; copy or download it again"
            ) from error
        notes.append(_HALF)
    if found.beside:
        notes.append(f"the given graph's weights were read from {', '.join(found.beside)} beside it")
    graph = GivenGraph(model, find_entry(model, where), size, threads, where)
    if graph.left:
        listed = ", ".join(f"{name} ({reason})" for name, reason in graph.left.items())
        notes.append(
            f"outputs of the given graph that are left out, since they are no rows or maps of floats: {listed}"
        )
    return LoadedGraph(graph, found.sha256, tuple(notes))
