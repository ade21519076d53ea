"""Measuring energy: contestants work in turn while meters are read."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.contestant import Contestant
from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.machine.power_meters import Meter
from mtl_deploy.bench.machine.power_trace import Recorder
from mtl_deploy.bench.measurement.measure import undisturbed
from mtl_deploy.bench.statistics.nested import Interval
from mtl_deploy.bench.statistics.student import student_t

SLOT_S = 1.0  # at least: meters count in steps of up to 100 ms
MOST_ROUNDS = 10
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Used:
    """What one contestant used, by round.

    Attributes:
        joules: of each round.
        seconds: of each round.
        images: of each round.
    """

    joules: tuple[float, ...]
    seconds: tuple[float, ...]
    images: tuple[int, ...]

    @property
    def watts(self) -> float:
        """Mean power."""
        return sum(self.joules) / sum(self.seconds)

    @property
    def joules_per_image(self) -> Interval:
        """All joules over all images; the interval is Student's over the rounds, of which there are two or more."""
        value = sum(self.joules) / sum(self.images)
        each = np.array(self.joules) / np.array(self.images)
        half = student_t(len(each) - 1) * float(each.std(ddof=1)) / math.sqrt(len(each))
        return Interval(value, value - half, value + half)


@dataclass
class Energy:
    """Energy of several contestants, by one meter.

    Attributes:
        source: ``NVML``, ``RAPL`` or ``INA3221``.
        domain: what is metered.
        idle_watts: its power while the contestants were loaded and did nothing; None where that was not measured.
        contestants: by name.
        interrupted: whether it ended before its time; it then holds the whole rounds.
        warnings: what casts doubt on the figures.
        further: what other meters read in the same rounds.
    """

    source: str
    domain: str
    idle_watts: float | None
    contestants: Mapping[str, Used]
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)
    further: tuple[Energy, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON."""
        return {
            "source": self.source,
            "domain": self.domain,
            "idle_watts": self.idle_watts,
            "contestants": {
                name: {
                    "joules_per_image": asdict(used.joules_per_image),
                    "watts": used.watts,
                    "seconds": sum(used.seconds),
                }
                for name, used in self.contestants.items()
            },
            "further": [other.to_dict() for other in self.further],
        }


def work(contestant: Contestant, batch: Batch, seconds: float) -> tuple[int, float, float]:
    """Call for some seconds, one call after the other; return the calls, and begin and end in seconds of ``time.monotonic``."""
    contestant(batch)  # other contestants ran meanwhile
    calls = 0
    with undisturbed():
        begin = now = time.monotonic()
        while calls == 0 or now < begin + seconds:
            contestant(batch)
            calls += 1
            now = time.monotonic()
    return calls, begin, now


def measure_energy(
    hosts: Mapping[str, Host],
    batch: Batch,
    meters: Sequence[Meter],
    *,
    seconds: float,
    idle_seconds: float = 2.0,
    images: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Energy | None:
    """Let contestants work in turn, in several rounds whose order alternates, and read the meters meanwhile.

    A contestant's energy in a round is what the meter counts between its first and its last call, by a clock that processes share.

    Args:
        hosts: of the contestants, by name.
        batch: what each call gets.
        meters: see :func:`~mtl_deploy.bench.machine.power_meters.find_meters`. The GPU's is left out where no contestant runs on
            it.
        seconds: per contestant; each of up to 10 rounds takes at least one of them.
        idle_seconds: to measure idle power in, beforehand; 0: it is not measured.
        images: per call.
        progress: shows what is being measured.

    Returns:
        What was measured; after Ctrl-C, the whole rounds; None where nothing can be read.

    Raises:
        WorkError: a contestant failed.
        KeyboardInterrupt: less than two rounds were whole.
    """
    meters = [meter for meter in meters if meter.source != "NVML" or any(map(_on_gpu, hosts.values()))]
    if not meters or not hosts:
        return None
    rounds = max(_LEAST_ROUNDS, min(MOST_ROUNDS, int(seconds / SLOT_S)))
    slot_s = max(seconds / rounds, SLOT_S)
    spans: list[dict[str, tuple[int, float, float]]] = []
    interrupted = False
    with ExitStack() as stack:
        recorders = [stack.enter_context(Recorder(meter)) for meter in meters]
        idle: list[float | None] = [None] * len(recorders)
        try:
            if idle_seconds > 0:
                progress("Energy: idle")
                begin = time.monotonic()
                time.sleep(idle_seconds)
                end = time.monotonic()
                idle = [_over(recorder.joules(begin, end), end - begin) for recorder in recorders]
            for number in range(rounds):
                progress(f"Energy: round {number + 1} of {rounds}")
                order = list(hosts) if number % 2 == 0 else list(hosts)[::-1]
                spans.append({name: hosts[name].run(work, batch, slot_s) for name in order})
        except KeyboardInterrupt:
            if len(spans) < 2:  # an interval needs two
                raise
            interrupted = True
        found = [
            Energy(recorder.meter.source, recorder.meter.domain, watts, used, interrupted)
            for recorder, watts in zip(recorders, idle, strict=True)
            if (used := _used(recorder, spans, list(hosts), images))
        ]
    if not found:
        return None
    first, *others = found
    first.further = tuple(others)
    if interrupted:
        first.warnings.append(f"the energy measurement was interrupted after {len(spans)} of {rounds} rounds")
    return first


def _used(
    recorder: Recorder, spans: Sequence[Mapping[str, tuple[int, float, float]]], names: Sequence[str], images: int
) -> dict[str, Used]:
    """Return what contestants used by one meter; empty where it failed, or stood still."""
    found = {}
    for name in names:
        joules = [recorder.joules(*one[name][1:]) for one in spans]
        told = [value for value in joules if value is not None]
        if len(told) < len(joules) or sum(told) <= 0:
            return {}
        found[name] = Used(
            joules=tuple(told),
            seconds=tuple(one[name][2] - one[name][1] for one in spans),
            images=tuple(one[name][0] * images for one in spans),
        )
    return found


def _over(joules: float | None, seconds: float) -> float | None:
    return None if joules is None else joules / seconds


def _on_gpu(host: Host) -> bool:
    words = (*(host.spec.settings.providers or ()), host.details)
    return host.spec.engines or any(word in text for text in words for word in ("CUDA", "Tensorrt", "TensorRT", "cuda"))
