"""What sharing would gain at best: the ratio of multiply-adds, and that of the weights that are read."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_deploy.bench.contestants.pair import Pair
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, read_graph

from .graph_profile import read_file
from .parts import BACKBONE, head, ideal_bytes


def ideal_multiply_adds(pair: Pair) -> float:
    """Return the separate models' multiply-adds over those of the shared one."""
    return sum(artifact.multiply_adds for artifact in pair.separate) / max(pair.shared.multiply_adds, 1)


def heads_share(pair: Pair) -> float:
    """Return the share of the shared artifact's multiply-adds that serve one task alone: heads, and decoders of their own.

    Of n models the separate ones do n backbones and all heads, the shared one a backbone and all heads.
    """
    count, shared = len(pair.separate), pair.shared.multiply_adds
    if count < 2 or not shared:
        return 0.0
    backbone = (sum(artifact.multiply_adds for artifact in pair.separate) - shared) / (count - 1)
    return min(max(1 - backbone / shared, 0.0), 1.0)


def ideal_weights(pair: Pair) -> float | None:
    """Return the bytes of weights that the separate graphs read over those of the shared one; None where a graph is missing.

    An engine's are those of the graph that it was built from: :func:`~mtl_deploy.bench.sections.where.parts.weight_bytes`.
    """
    try:
        return ideal_bytes(_graph(pair, pair.shared), [_graph(pair, artifact) for artifact in pair.separate])
    except BundleError:
        return None


def multiply_adds(pair: Pair) -> dict[str, float]:
    """Return those of backbone and heads from the manifest; empty where it has none."""
    recorded: Mapping[str, object] = pair.bundle.manifest.sharing.get("multiply_adds", {})
    heads = recorded.get("heads")
    if not isinstance(heads, dict) or BACKBONE not in recorded:
        return {}
    return {BACKBONE: float(str(recorded[BACKBONE])), **{head(task): float(count) for task, count in heads.items()}}


def _graph(pair: Pair, artifact: Artifact) -> OnnxGraph:
    path = str(artifact.details.get("source", "")) if artifact.backend == "tensorrt" else artifact.path
    return read_graph(read_file(pair.bundle.path / path))
