"""Where the time goes inside a shared graph: ONNX Runtime's profile of each node, summed over backbone and heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl_deploy.bench.contestants.pair import Batch, Settings
from mtl_deploy.bench.measurement.measure import undisturbed
from mtl_deploy.bench.statistics.nested import Samples
from mtl_deploy.runtime.backends.onnxruntime.profile import ProfiledBackend
from mtl_deploy.runtime.bundle.manifest import find_bundle
from mtl_deploy.runtime.errors import BundleError

from .parts import OVERHEAD, Part, assign, summarise

CHUNKS = 3  # sessions, one after the other
SLOT_S = 1.0  # per session
WARM_UP = 5  # calls of a session that are left out
MIN_CALLS = 5
MAX_EVENTS = 20_000  # of a session: ONNX Runtime holds them in memory, and drops what is beyond a million


@dataclass(frozen=True)
class Profile:
    """Where the time of a call goes.

    Attributes:
        source: what took the times, for people.
        calls: that were profiled.
        call_ms: a call's time while the profiler was on: the median.
        parts: of the shared artifact.
        warnings: what casts doubt on the figures.
    """

    source: str
    calls: int
    call_ms: float
    parts: tuple[Part, ...]
    warnings: tuple[str, ...] = ()


def profile_graph(
    contestant: object,  # noqa: ARG001 - so that a Host can run it
    file: Path,
    batch: Batch,
    settings: Settings,
    *,
    slot_s: float | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Profile:
    """Profile a graph in sessions of its own, one after the other, with the settings of those that are measured.

    Made to be run by a :class:`~mtl_deploy.bench.contestants.hosts.Host`, whose contestant is idle meanwhile. A call is timed as
    everywhere else here, from a batch in host memory to outputs in host memory; what lies outside of every node is
    ``between nodes``, with the profiler's own work.

    Args:
        contestant: not used.
        file: a graph with one output per task; one of a bundle is read only if its SHA-256 is the manifest's.
        batch: what each call gets.
        settings: providers, threads and spinning.
        slot_s: seconds per session; None: :data:`SLOT_S`.
        clock: nanoseconds.

    Raises:
        BackendError: ONNX Runtime is missing, or the graph runs elsewhere than on the processor.
        RunError: a call failed, or the profile cannot be read.
    """
    chunks: list[Samples] = []
    assigned: list[tuple[str, str]] = []
    for _ in range(CHUNKS):
        backend = ProfiledBackend(
            lambda: read_file(file),
            where=str(file),
            providers=settings.providers,
            threads=settings.threads,
            spinning=settings.spinning,
        )
        try:
            names = [spec.name for spec in backend.outputs]
            inputs = {backend.inputs[0].name: batch}
            calls: list[int] = []
            with undisturbed():
                for _ in range(WARM_UP):
                    backend.run(inputs, names)
                end = clock() + int((SLOT_S if slot_s is None else slot_s) * 1e9)
                most = MAX_EVENTS // max(len(backend.graph.nodes), 1)
                while len(calls) < MIN_CALLS or (clock() < end and len(calls) < most):
                    started = clock()
                    backend.run(inputs, names)
                    calls.append(clock() - started)
            found = backend.node_times(WARM_UP)
        finally:
            backend.close()
        whole = np.array(calls, np.float64) / 1e6
        between = np.maximum(whole - found.sum(axis=1), 0.0)
        chunks.append(np.column_stack([found, between]))
        kinds = zip(assign(backend.graph), (node.op_type for node in backend.graph.nodes), strict=True)
        assigned = [*kinds, (OVERHEAD, "")]
    return _profile("ONNX Runtime's profile", chunks, assigned)


def _profile(source: str, chunks: Sequence[Samples], assigned: Sequence[tuple[str, str]]) -> Profile:
    calls = np.concatenate(chunks)
    parts = summarise(calls, [len(chunk) for chunk in chunks], assigned)
    return Profile(source, len(calls), float(np.median(calls.sum(axis=1))), tuple(parts))


def read_file(file: Path) -> bytes:
    """Return a graph's bytes; one of a bundle only if its SHA-256 is the manifest's.

    Raises:
        BundleError: it is missing, or changed.
    """
    found = find_bundle(file)
    if found is not None:
        return found[0].read(found[1])
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror or error}; export the bundle again") from error
