"""Where the time goes and where sharing begins to pay, as sections of ``mtl-bench``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtl_deploy.bench.contestants.specs import SHARED
from mtl_deploy.bench.statistics.nested import Nested
from mtl_deploy.runtime.errors import BundleError
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, read_graph

from .break_even import BreakEven, break_even
from .graph_profile import read_file
from .parts import BACKBONE, head, ideal_bytes
from .where import Where, measure_where

if TYPE_CHECKING:
    from mtl_deploy.bench.contestants.pair import Pair
    from mtl_deploy.bench.measurement.measure import Measurement
    from mtl_deploy.bench.sections.base import BatchContext, RunContext
    from mtl_deploy.runtime.bundle.manifest import Artifact


def where(context: BatchContext) -> Where | None:
    """Profile the shared artifact of one batch size; None where its contestant is not alive.

    Raises:
        BackendError, RunError: see :func:`~mtl_deploy.bench.sections.where.where.measure_where`.
    """
    host = context.hosts.get(SHARED)
    if host is None:
        return None
    pair = context.plan.pair
    return measure_where(
        host,
        context.batch,
        _samples(context.measurement),
        ideal=ideal_multiply_adds(pair),
        ideal_bytes=ideal_weights(pair),
        multiply_adds=multiply_adds(pair),
        seed=context.plan.seed,
        progress=context.progress.update,
    )


def sharing_pays(context: RunContext) -> BreakEven:
    """Find break-even from all batch sizes that were measured."""
    batches = {report.batch: _samples(report.measurement) for report in context.reports}
    tasks = [task.name for task in context.plan.pair.bundle.manifest.tasks]
    return break_even(batches, tasks, seed=context.plan.seed)


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


def _samples(measurement: Measurement) -> dict[str, Nested]:
    return {name: nested for name in measurement.names if (nested := measurement.nested(name))}
