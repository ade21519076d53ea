"""Loading an ONNX file: read, checked, prepared, and run once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from mtl_deploy.runtime.errors import CheckpointError

from .entry import find_entry
from .graph import GivenGraph
from .graph_ranges import GraphRanges
from .pairs import FloatGraph, without_pairs
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
        ranges: of the tensors that it quantizes; None: it quantizes none.
    """

    graph: GivenGraph
    sha256: str
    notes: tuple[str, ...]
    ranges: GraphRanges | None


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
    plain = _without_pairs(found.model, where)
    model = plain.model
    notes = [*prepare(model, where), *([_quantized(plain)] if plain.ranges or plain.weights else [])]
    if holds(model, HALVES):
        model = retyped(model, WIDENED)
        notes.append(_HALF)
    if found.beside:
        notes.append(f"the given graph's weights were read from {', '.join(found.beside)} beside it")
    graph = GivenGraph(model, find_entry(model, where), size, threads, where)
    if graph.left:
        listed = ", ".join(f"{name} ({reason})" for name, reason in graph.left.items())
        notes.append(
            f"outputs of the given graph that are left out, since they are no rows or maps of floats: {listed}"
        )
    ranges = GraphRanges(graph, plain.ranges) if plain.ranges else None
    return LoadedGraph(graph, found.sha256, tuple(notes), ranges)


def _without_pairs(model: onnx.ModelProto, where: str) -> FloatGraph:
    try:
        return without_pairs(model)
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError) as error:
        raise CheckpointError(
            f"{where}: its QuantizeLinear and DequantizeLinear do not fit together ({type(error).__name__}); export it again, or "
            "give the float graph that it was made from"
        ) from error


def _quantized(plain: FloatGraph) -> str:
    weights = f", and {plain.weights} integer weights became the floats that they stand for" if plain.weights else ""
    return (
        f"the given graph is quantized: its QuantizeLinear and DequantizeLinear were taken out{weights}; every graph is compared "
        f"with what is left. INT8 keeps {len(plain.ranges)} of its ranges where it quantizes the same tensors"
    )
