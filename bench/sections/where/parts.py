"""The parts of a shared graph: which node belongs to the backbone, which to one head, and how much of the time each takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np

from mtl_deploy.bench.statistics.derived import derived
from mtl_deploy.bench.statistics.nested import Interval, Samples
from mtl_deploy.runtime.onnx_format.border import of_border
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, OnnxNode, OnnxTensor
from mtl_deploy.runtime.onnx_format.weighted import is_weighted

BACKBONE, BORDERS, UNASSIGNED, OVERHEAD = "backbone", "borders", "unassigned", "between nodes"
OPERATORS = 5  # named per part


@dataclass(frozen=True)
class Operator:
    """What one type of operator takes in a part.

    Attributes:
        type: its name; ONNX Runtime's own types among them.
        ms: of a call.
        share: of the whole call's time, 0 to 1.
    """

    type: str
    ms: float
    share: float


@dataclass(frozen=True)
class Part:
    """One part of the shared artifact.

    Attributes:
        name: ``backbone`` (what two tasks or more need), ``head TASK`` (what one needs), ``borders`` (what is done to
            the input before the first layer with weights: preprocessing in the graph), ``between nodes`` (the call's
            time outside of every node) or ``unassigned``.
        task: a head's; None otherwise.
        ms: of a call, while the profiler was on: the median.
        share: of the call's time, 0 to 1; those of all parts add up to 1.
        operators: those that take most.
    """

    name: str
    task: str | None
    ms: Interval
    share: float
    operators: tuple[Operator, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return asdict(self) | {"operators": [asdict(operator) for operator in self.operators]}


def head(task: str) -> str:
    """Return the name of a task's part."""
    return f"head {task}"


def assign(graph: OnnxGraph) -> list[str]:
    """Return the part of each node of a graph whose outputs are tasks, in the order of its nodes.

    A node that no output needs is ``unassigned``. Where two of three tasks share a branch, it counts as backbone.
    """
    producer = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs if name}
    reads = [[producer[name] for name in _reads(node) if name in producer] for node in graph.nodes]
    needed = {
        value.name: _reachable([producer[value.name]] if value.name in producer else [], reads)
        for value in graph.outputs
    }
    fed, weighted = _fed(graph, reads)
    parts = []
    for i in range(len(graph.nodes)):
        users = [task for task, nodes in needed.items() if i in nodes]
        if not users:
            parts.append(UNASSIGNED)
        elif len(users) == 1 and len(needed) > 1:
            parts.append(head(users[0]))
        else:
            parts.append(BORDERS if fed[i] and not weighted[i] else BACKBONE)
    return parts if BACKBONE in parts else [BACKBONE if part == BORDERS else part for part in parts]


def summarise(calls: Samples, chunks: Sequence[int], assigned: Sequence[tuple[str, str]]) -> list[Part]:
    """Return the parts with their times and shares.

    A part's time is the mean over chunks of the median over calls of the sum over its nodes; shares are of the sum of these.

    Args:
        calls: ``(calls, nodes)``, milliseconds.
        chunks: calls of each chunk (of each session), in order.
        assigned: each node's part and type of operator.
    """
    names = sorted({part for part, _ in assigned}, key=_order)
    ends = np.cumsum(chunks)[:-1]

    def columns(wanted: tuple[str, str | None]) -> Samples:
        of = [i for i, (part, kind) in enumerate(assigned) if part == wanted[0] and wanted[1] in (None, kind)]
        found: Samples = calls[:, of].sum(axis=1)
        return found

    def median(values: Samples) -> float:
        return float(np.mean([np.median(chunk) for chunk in np.split(values, ends)]))

    nested = {name: [[chunk] for chunk in np.split(columns((name, None)), ends)] for name in names}
    times = derived(nested, lambda found: found)
    total = sum(interval.value for interval in times.values()) or 1.0
    parts = []
    for name in names:
        kinds = {kind: median(columns((name, kind))) for part, kind in assigned if part == name and kind}
        largest = sorted(kinds.items(), key=lambda item: -item[1])[:OPERATORS]
        task = name.removeprefix("head ") if name.startswith("head ") else None
        operators = tuple(Operator(kind, ms, ms / total) for kind, ms in largest)
        parts.append(Part(name, task, times[name], times[name].value / total, operators))
    return parts


def weight_bytes(graph: OnnxGraph) -> int:
    """Return the bytes of the constants that a graph's nodes read, each once: what a call must read of weights at least.

    Activations are not counted: how often they leave the caches is the processor's affair.
    """
    read = {name for node in graph.all_nodes() for name in node.inputs}
    return sum(_bytes(tensor) for inner in graph.walk() for name, tensor in inner.initializers.items() if name in read)


def ideal_bytes(shared: OnnxGraph, separate: Iterable[OnnxGraph]) -> float:
    """Return the separate graphs' :func:`weight_bytes` over the shared one's: the gain where weights alone count."""
    return sum(map(weight_bytes, separate)) / max(weight_bytes(shared), 1)


def _bytes(tensor: OnnxTensor) -> int:
    kind = tensor.element_type
    if kind in ("bool", "string"):
        bits = 8
    elif kind == "complex128":
        bits = 128
    else:
        digits = kind.removeprefix("bfloat").removeprefix("float").removeprefix("complex").lstrip("uint")
        number = digits.split("_")[0]
        bits = int(number) if number.isdigit() else 32
    return (prod(tensor.shape) * bits + 7) // 8


def _order(name: str) -> tuple[int, str]:
    places = {BORDERS: 0, BACKBONE: 1, OVERHEAD: 3, UNASSIGNED: 4}
    return places.get(name, 2), name if name not in places else ""


def _reads(node: OnnxNode) -> set[str]:
    inner = {name for graph in node.graphs for other in graph.all_nodes() for name in other.inputs}
    return {*node.inputs, *inner, *(value.name for graph in node.graphs for value in graph.outputs)}


def _reachable(start: Iterable[int], reads: Sequence[Sequence[int]]) -> set[int]:
    found: set[int] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(reads[node])
    return found


def _fed(graph: OnnxGraph, reads: Sequence[Sequence[int]]) -> tuple[list[bool], list[bool]]:
    """Return for each node whether it depends on the input, and whether it has or depends on a layer with weights."""
    inputs = {value.name for value in graph.inputs} - set(graph.initializers)
    fed = [bool(inputs & _reads(node)) for node in graph.nodes]
    weighted = [_is_layer(node) for node in graph.nodes]
    for i, sources in enumerate(reads):  # ONNX demands that a node stand behind those that it reads from
        fed[i] = fed[i] or any(fed[j] for j in sources)
        weighted[i] = weighted[i] or any(weighted[j] for j in sources)
    return fed, weighted


def _is_layer(node: OnnxNode) -> bool:
    if of_border(node.name):
        return False
    inner = (each.op_type for graph in node.graphs for each in graph.all_nodes())
    return any(is_weighted(kind) for kind in (node.op_type, *inner))


def shares(parts: Sequence[Part]) -> Mapping[str, float]:
    """Return what differences of whole calls can say about the parts: each head's share, and all else as the backbone's."""
    found = {part.name: part.share for part in parts if part.task is not None}
    return {BACKBONE: 1 - sum(found.values()), **found}
