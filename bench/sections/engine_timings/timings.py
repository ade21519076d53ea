"""What the GPU does inside a call of an engine, in trtexec's words: with and without copies, with and without CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.forms import Side
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.measurement.measure import undisturbed
from mtl_deploy.runtime.backends.tensorrt.timing import Timeline, Timing

ROUNDS = 5
SLOT_S = 0.1  # per way and round
MIN_CALLS = 5
COLUMNS = {
    "enqueue": "Enqueue Time",
    "h2d": "H2D Latency",
    "compute": "GPU Compute Time",
    "d2h": "D2H Latency",
    "latency": "Latency",
}
"""trtexec's names (NVIDIA/TensorRT v11.1, samples/common/sampleReporting.cpp, ``printMetricExplanations``)."""


@dataclass(frozen=True)
class Way:
    """A way to call an engine.

    Attributes:
        transfers: whether inputs and outputs are copied.
        graph: whether the engine is launched as a CUDA graph.
    """

    transfers: bool
    graph: bool

    @property
    def key(self) -> str:
        """Its name in JSON."""
        return f"{'transfers' if self.transfers else 'no_transfers'},{'graph' if self.graph else 'no_graph'}"


WAYS = tuple(Way(transfers, graph) for transfers in (True, False) for graph in (False, True))


@dataclass(frozen=True)
class EngineTimings:
    """What was measured.

    Attributes:
        samples: by side and way, one per call; of a side of several engines, which run one after the other, the parts are added up.
        graphs_off: why there are no CUDA graphs; None where there are.
        warnings: what casts doubt on the figures.
    """

    samples: Mapping[tuple[str, Way], Sequence[Timing]]
    graphs_off: str | None
    warnings: Sequence[str] = ()

    def medians(self, side: str, way: Way) -> dict[str, float]:
        """Return the median of each part over the calls, in milliseconds."""
        timings = self.samples[side, way]
        return {part: float(np.median([getattr(timing, part) for timing in timings])) for part in COLUMNS}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: medians and all samples, in milliseconds."""
        found: dict[str, Any] = {"graphs_off": self.graphs_off, "names": dict(COLUMNS), "sides": {}}
        for (side, way), timings in self.samples.items():
            found["sides"].setdefault(side, {})[way.key] = {
                "transfers": way.transfers,
                "cuda_graph": way.graph,
                "calls": len(timings),
                "median_ms": self.medians(side, way),
                "samples_ms": {part: [round(getattr(timing, part), 6) for timing in timings] for part in COLUMNS},
            }
        return found


def measure_timings(
    sides: Sequence[Side],
    batch: Batch,
    *,
    graphs: bool,
    clock: Callable[[], int] = time.perf_counter_ns,
    progress: Callable[[str], None] = lambda _: None,
) -> EngineTimings:
    """Measure each side in each way, in turn.

    Args:
        sides: of engines.
        batch: what each call gets.
        graphs: whether to measure CUDA graphs.
        clock: nanoseconds.
        progress: shows what is being measured.

    Raises:
        RunError: the GPU or the library failed, or the GPU's memory is full.
    """
    with ExitStack() as stack, undisturbed():
        lines = {
            side.name: [stack.enter_context(closing(Timeline(engine, batch, graphs=graphs))) for engine in side.engines]
            for side in sides
        }
        off = next((line.graphs_off for one in lines.values() for line in one if line.graphs_off), None)
        ways = [way for way in WAYS if not (way.graph and off)]
        samples: dict[tuple[str, Way], list[Timing]] = {(side, way): [] for side in lines for way in ways}
        for done in range(ROUNDS):
            progress(f"Measuring on the GPU's clock: round {done + 1} of {ROUNDS}")
            for (side, way), into in list(samples.items())[:: 1 if done % 2 == 0 else -1]:
                into += _slot(lines[side], way, clock)
    return EngineTimings(samples, off)


def _slot(lines: Sequence[Timeline], way: Way, clock: Callable[[], int]) -> list[Timing]:
    """Call for a slot's time. The first call is dropped, as in :mod:`~mtl_deploy.bench.measurement.measure`."""
    found: list[Timing] = []
    end = clock() + int(SLOT_S * 1e9)
    while len(found) <= MIN_CALLS or clock() < end:
        parts = [line.measure(transfers=way.transfers, graph=way.graph) for line in lines]
        found.append(sum(parts[1:], start=parts[0]))
    return found[1:]
