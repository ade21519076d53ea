"""Where the time goes inside a shared engine: the library's profiler, its layers traced back to the nodes of the engine's graph.

TensorRT names a layer after the ONNX nodes that it computes: ``conv1 + relu1`` (fused), ``fc1 || fc2`` (merged side by side),
``PWN(PWN(sigmoid), mul)`` (pointwise), ``{ForeignNode[a...b]}`` (a region, from a to b), ``Reformatting CopyNode for Input Tensor 0
to conv1``. With detailed verbosity, which mtl-export builds with, the inspector adds ``[ONNX Layer: conv1]`` for each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from mtl_deploy.bench.contestants.forms import Side
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.measurement.measure import undisturbed
from mtl_deploy.bench.statistics.nested import Samples
from mtl_deploy.runtime.backends.tensorrt.backend import TensorRTBackend
from mtl_deploy.runtime.backends.tensorrt.profile import Layer, LayerTimes
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, read_graph
from mtl_deploy.runtime.onnx_format.weighted import is_weighted

from .graph_profile import Profile, read_file
from .parts import BACKBONE, BORDERS, UNASSIGNED, assign, summarise

CALLS = 50  # of a chunk
CHUNKS = 3
MUCH_UNASSIGNED = 0.05  # from this share on, a warning is due
_METADATA = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_REGION = re.compile(r"ForeignNode\[(.+?)\.\.\.(.+?)\]")
_REFORMAT = re.compile(
    r"^Reformatting CopyNode for (?:Input|Output|Network Input|Network Output) \S+(?: Tensor)?(?: \d+)? (?:to|from) "
)
_APART = re.compile(r" \+ |\s*\|\|\s*|[(),\[\]{}\s\x1e]+|\.\.\.")


def profile_engine(backend: TensorRTBackend, source: OnnxGraph, batch: Batch) -> Profile:
    """Profile a shared engine.

    Args:
        backend: it; it must stay open.
        source: the graph that it was built from.
        batch: what each call gets.

    Raises:
        RunError: the GPU or the library failed, or reported nothing.
    """
    chunks: list[Samples] = []
    names: list[str] = []
    layers: list[Layer] = []
    for _ in range(CHUNKS):  # an execution context each
        with closing(LayerTimes(backend, batch)) as times, undisturbed():
            layers = layers or times.layers()
            first = times.measure()
            names = names or list(first)
            calls = [times.measure() for _ in range(CALLS)]
        chunks.append(np.array([[call.get(name, 0.0) for name in names] for call in calls], np.float64))
    found = layer_parts(source, names, layers)
    library = backend.loaded.library.title
    samples = np.concatenate(chunks)
    parts = summarise(samples, [len(chunk) for chunk in chunks], [found[name] for name in names])
    lost = sum(part.share for part in parts if part.name == UNASSIGNED)
    warnings: tuple[str, ...] = ()
    if lost > MUCH_UNASSIGNED:
        warnings = (
            f"{100 * lost:.0f} % of the engine's time is in layers that {library} names after no nodes, or after those of several "
            "parts: no part's share holds it",
        )
    return Profile(f"{library}'s profiler", len(samples), float(np.median(samples.sum(axis=1))), tuple(parts), warnings)


def layer_parts(source: OnnxGraph, names: Sequence[str], layers: Sequence[Layer]) -> dict[str, tuple[str, str]]:
    """Return each layer's part and type, by its name.

    A layer of several nodes belongs to their part where they have one in common. Where backbone meets preprocessing, it is
    backbone; where heads meet each other or the backbone, it is ``unassigned``: its time cannot be split.

    Args:
        source: the graph that the engine was built from.
        names: of layers, as the profiler reports them.
        layers: what the inspector reports; empty where it reports nothing.
    """
    assigned = assign(source)
    places = {node.name: i for i, node in enumerate(source.nodes) if node.name}
    told = {layer.name: layer for layer in layers}
    found = {}
    for name in names:
        layer = told.get(name, Layer(name))
        nodes = _nodes(source, places, layer.metadata) or _nodes(source, places, name)
        parts = {assigned[i] for i in nodes}
        if parts == {BACKBONE, BORDERS}:
            parts = {BACKBONE}
        part = parts.pop() if len(parts) == 1 else UNASSIGNED
        found[name] = (part, _kind(source, nodes, name, layer))
    return found


def _nodes(source: OnnxGraph, places: Mapping[str, int], text: str) -> set[int]:
    """Return the nodes that a layer's name or metadata speaks of; empty where it speaks of none."""
    marked = [name for name in _METADATA.findall(text) if name in places]
    if marked:
        return {places[name] for name in marked}
    found: set[int] = set()
    for first, last in _REGION.findall(text):
        if first in places and last in places:
            found |= _between(source, places[first], places[last])
    rest = _REFORMAT.sub("", _REGION.sub(" ", text))
    if rest in places:
        return {places[rest]}
    return found | {places[word] for word in _APART.split(rest) if word in places}


def _between(source: OnnxGraph, first: int, last: int) -> set[int]:
    """Return the nodes on the way from one to another; in ONNX's order all lie between the two."""
    low, high = min(first, last), max(first, last)
    reached = {low}
    for i in range(low + 1, high + 1):
        made = {name for j in reached for name in source.nodes[j].outputs}
        if made & set(source.nodes[i].inputs):
            reached.add(i)
    leading = {high}
    for i in range(high - 1, low - 1, -1):
        if set(source.nodes[i].outputs) & {name for j in leading for name in source.nodes[j].inputs}:
            leading.add(i)
    return (reached & leading) | {first, last}


def _kind(source: OnnxGraph, nodes: set[int], name: str, layer: Layer) -> str:
    if name.startswith("Reformatting"):
        return "Reformat"
    types = [source.nodes[i].op_type for i in sorted(nodes)]
    return next((kind for kind in types if is_weighted(kind)), types[0] if types else layer.type or "other")


def profile_shared_engine(contestant: Side, source: Path, batch: Batch) -> Profile:
    """Profile a contestant's one engine; for :meth:`~mtl_deploy.bench.contestants.hosts.Host.run`.

    Args:
        contestant: the shared engine.
        source: the graph that it was built from.
        batch: what each call gets.

    Raises:
        BundleError: the graph is missing, or none.
        RunError: see :func:`profile_engine`.
    """
    return profile_engine(contestant.engines[0], read_graph(read_file(source)), batch)
