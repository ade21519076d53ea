"""Where the time goes: backbone and heads in the shared artifact, checked against whole calls, and what is lost of the ideal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.forms import Side
from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED
from mtl_deploy.bench.statistics.derived import Locations, derived
from mtl_deploy.bench.statistics.nested import Interval, Nested, Samples, location
from mtl_deploy.runtime.errors import BackendError

from .engine_profile import profile_shared_engine
from .graph_profile import Profile, profile_graph
from .parts import BACKBONE, BORDERS, OVERHEAD, UNASSIGNED, head, shares

TOLERANCE = 0.02  # of a call's time: what the two ways may differ by beyond the interval
WIDE = 0.1  # of a call's time: an interval from which whole calls say too little
COSTLY = 0.1  # what profiling may add to a call before a warning is due
_WORTH_SAYING = 0.01  # of a call's time, or of the ratio


@dataclass(frozen=True)
class EndToEnd:
    """Backbone and heads from whole calls, without a profiler.

    With S the time of the shared artifact, t_i that of the same artifact cut down to task i, and n tasks that share one backbone:
    backbone B = (t_1 + ... + t_n - S) / (n - 1), and head i = t_i - B. A call's fixed cost and preprocessing are in B.

    Attributes:
        ms: by part: ``backbone`` and ``head TASK``.
        share: likewise, of S.
        largest_difference: between a share here and the profile's, 0 to 1.
        agrees: whether each interval, widened by :data:`TOLERANCE`, contains the profile's share.
    """

    ms: Mapping[str, Interval]
    share: Mapping[str, Interval]
    largest_difference: float
    agrees: bool

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {
            "parts": [
                {"name": name, "ms": asdict(ms), "share": asdict(self.share[name])} for name, ms in self.ms.items()
            ],
            "largest_difference": self.largest_difference,
            "agrees": self.agrees,
            "tolerance": TOLERANCE,
        }


@dataclass(frozen=True)
class Where:
    """Where the time of one batch size goes.

    Attributes:
        profile: of the shared artifact.
        latency_ms: of a call of it without the profiler: see :func:`~mtl_deploy.bench.statistics.nested.location`.
        end_to_end: None where a task's own contestant was not measured, or there is one task alone.
        ideal: separate over shared, by multiply-adds.
        ideal_bytes: the same by the weights that are read; None where that is not known.
        measured: separate over shared, by time; None where it was not measured.
        reasons: why the two differ, in sentences.
    """

    profile: Profile
    latency_ms: float
    end_to_end: EndToEnd | None
    ideal: float
    ideal_bytes: float | None
    measured: float | None
    reasons: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What casts doubt on the figures."""
        found = list(self.profile.warnings)
        cost = self.profile.call_ms / self.latency_ms - 1
        if cost > COSTLY:
            found.append(
                f"with {self.profile.source} on, a call takes {self.profile.call_ms:.2f} ms instead of {self.latency_ms:.2f}: the "
                "shares of parts with many small nodes are too large"
            )
        if self.end_to_end is not None and any(one.high - one.low > WIDE for one in self.end_to_end.share.values()):
            found.append(
                "whole calls vary too much to check the shares of backbone and heads; measure for longer, with more processes"
            )
        if self.end_to_end is not None and not self.end_to_end.agrees:
            found.append(
                f"the shares of backbone and heads in {self.profile.source} and from whole calls differ by up to "
                f"{100 * self.end_to_end.largest_difference:.1f} % of a call"
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {
            "source": self.profile.source,
            "calls": self.profile.calls,
            "call_ms": self.profile.call_ms,
            "latency_ms": self.latency_ms,
            "parts": [part.to_dict() for part in self.profile.parts],
            "end_to_end": None if self.end_to_end is None else self.end_to_end.to_dict(),
            "lost": {
                "ideal": self.ideal,
                "bytes": self.ideal_bytes,
                "measured": self.measured,
                "reasons": list(self.reasons),
            },
        }


def measure_where(
    host: Host,
    batch: Batch,
    samples: Mapping[str, Nested],
    *,
    ideal: float,
    ideal_bytes: float | None = None,
    multiply_adds: Mapping[str, float] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Where:
    """Profile the shared artifact where it lives, and compare with what was measured.

    Args:
        host: of the shared contestant; its graph is profiled in sessions of their own in the same process, its engine in
            contexts of their own.
        batch: what each call gets.
        samples: latencies by contestant, without the profiler: ``shared``, and where they were measured ``separate`` and
            ``shared:TASK`` of each task.
        ideal: separate over shared, by multiply-adds.
        ideal_bytes: the same by the weights that are read; None: not known.
        multiply_adds: of the shared graph's parts: ``backbone``, and ``head TASK`` of each task; None: not known.
        progress: shows what is being measured.

    Raises:
        BackendError: the artifact runs where no profile can be taken.
        RunError: running or profiling failed.
    """
    progress("Profiling the shared artifact")
    spec = host.spec
    artifact = spec.artifacts[0]
    if spec.engines:
        source = spec.path / str(artifact.details.get("source", ""))
        profile = host.run(_engine, source, batch)
    elif spec.settings.backend == "openvino":
        raise BackendError(
            "where the time goes is not known: nodes are profiled by ONNX Runtime, and the graphs run on OpenVINO; see it with "
            "--backend onnxruntime"
        )
    else:
        profile = host.run(profile_graph, spec.path / artifact.path, batch, spec.settings)
    return explain(profile, samples, spec.tasks, ideal, multiply_adds or {}, ideal_bytes=ideal_bytes)


def _engine(contestant: Any, source: Path, batch: Batch) -> Profile:
    assert isinstance(contestant, Side)  # what runs a bundle's engine
    return profile_shared_engine(contestant, source, batch)


def explain(
    profile: Profile,
    samples: Mapping[str, Nested],
    tasks: Sequence[str],
    ideal: float,
    multiply_adds: Mapping[str, float],
    *,
    ideal_bytes: float | None = None,
) -> Where:
    """Compare a profile with what was measured; see :func:`measure_where`."""
    latency = location(samples[SHARED])
    measured = location(samples[SEPARATE]) / latency if SEPARATE in samples else None
    reasons = [
        *_heads(profile, tasks, multiply_adds, ideal),
        *_fixed(profile, len(tasks)),
        *_caches(samples, tasks),
    ]
    whole = end_to_end(profile, samples, tasks)
    return Where(profile, latency, whole, ideal, ideal_bytes, measured, tuple(reasons))


def backbone_and_heads(found: Locations, tasks: Sequence[str]) -> dict[str, Samples]:
    """Return the times of backbone and heads from those of whole calls; see :class:`EndToEnd`."""
    alone = {task: found[f"{SHARED}:{task}"] for task in tasks}
    total: Samples = np.sum(list(alone.values()), axis=0)
    backbone: Samples = (total - found[SHARED]) / (len(tasks) - 1)
    return {BACKBONE: backbone, **{head(task): time - backbone for task, time in alone.items()}}


def has_subsets(samples: Mapping[str, Nested], tasks: Sequence[str]) -> bool:
    """Return whether the shared artifact was measured for each of two tasks or more alone."""
    return len(tasks) > 1 and all(samples.get(f"{SHARED}:{task}") for task in tasks)


def end_to_end(profile: Profile, samples: Mapping[str, Nested], tasks: Sequence[str]) -> EndToEnd | None:
    """Compare a profile with the differences of whole calls; None where they were not measured.

    Args:
        profile: of the shared artifact.
        samples: latencies by contestant, side by side.
        tasks: of the shared artifact.
    """
    if not has_subsets(samples, tasks):
        return None
    used = {name: samples[name] for name in (SHARED, *(f"{SHARED}:{task}" for task in tasks))}

    def both(found: Locations) -> dict[str, Samples]:
        ms = backbone_and_heads(found, tasks)
        return {**ms, **{f"share of {name}": time / found[SHARED] for name, time in ms.items()}}

    figures = derived(used, both)
    names = [BACKBONE, *map(head, tasks)]
    share = {name: figures[f"share of {name}"] for name in names}
    claimed = {name: shares(profile.parts).get(name, 0.0) for name in names}
    agrees = all(one.low - TOLERANCE <= claimed[name] <= one.high + TOLERANCE for name, one in share.items())
    largest = max(abs(one.value - claimed[name]) for name, one in share.items())
    return EndToEnd({name: figures[name] for name in names}, share, largest, agrees)


def _share(profile: Profile, name: str) -> float:
    return sum(part.share for part in profile.parts if part.name == name)


def _heads(profile: Profile, tasks: Sequence[str], multiply_adds: Mapping[str, float], ideal: float) -> list[str]:
    n, total = len(tasks), sum(multiply_adds.values())
    if not total or n < 2 or _share(profile, UNASSIGNED) > TOLERANCE:
        return []
    time = sum(_share(profile, head(task)) for task in tasks)
    work = sum(multiply_adds.get(head(task), 0.0) for task in tasks) / total
    if abs(time - work) < _WORTH_SAYING:
        return []
    return [
        f"the heads take {100 * time:.1f} % of a call's time with {100 * work:.1f} % of the multiply-adds, so that sharing can "
        f"gain {n - (n - 1) * time:.2f} times, not {ideal:.2f}"
    ]


def _fixed(profile: Profile, n: int) -> list[str]:
    parts = {"outside of every node": _share(profile, OVERHEAD), "preprocessing in the graph": _share(profile, BORDERS)}
    said = [f"{100 * share:.1f} % is {what}" for what, share in parts.items() if share >= _WORTH_SAYING]
    if not said:
        return []
    return [
        f"of a shared call's time {' and '.join(said)}, without multiply-adds: {n} separate models pay that {n} times"
    ]


def _caches(samples: Mapping[str, Nested], tasks: Sequence[str]) -> list[str]:
    """Compare the separate models in sequence with the shared artifact for one task at a time: the same work, in other caches."""
    if not has_subsets(samples, tasks) or SEPARATE not in samples:
        return []
    names = [f"{SHARED}:{task}" for task in tasks]

    def figure(found: Locations) -> dict[str, Samples]:
        alone: Samples = np.sum([found[name] for name in names], axis=0)
        return {"ratio": found[SEPARATE] / alone}

    used = {name: samples[name] for name in (SEPARATE, *names)}
    ratio = derived(used, figure, positive=True)["ratio"]
    if ratio.contains(1) or abs(ratio.value - 1) < _WORTH_SAYING:
        return []
    more = ratio.value > 1
    cause = "; the likely cause is that each finds the caches full of another's weights" if more else ""
    return [
        f"in sequence, the separate models take {location(samples[SEPARATE]):.2f} ms, and the shared artifact for one task at a "
        f"time {sum(location(samples[name]) for name in names):.2f} ms in all, with the same multiply-adds: "
        f"{100 * abs(ratio.value - 1):.1f} % {'more' if more else 'less'}{cause}"
    ]
