"""Cold start: from the start of a process to its first prediction, as an application sees it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.contestants.processes import Ended, command_of
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, SUBSET, Spec
from mtl_deploy.bench.statistics.nested import Interval, Samples, quantile
from mtl_deploy.runtime.errors import OptionError, WorkError
from mtl_deploy.runtime.files.temporary import temporary_folder

PHASES = ("python", "imports", "load", "first_prediction")
"""Interpreter; the runtime's imports; loading the models, their library and checking their hashes; the first batch through all."""
_CHILD = "mtl_deploy.bench.sections.cold_start.child"
_FEWEST = 3  # starts whose smallest and largest bound a median at all
_GRAPHS = 8  # of a context of an engine, as load() keeps by default


@dataclass(frozen=True)
class Starts:
    """The starts of one contestant.

    Attributes:
        phases_ms: by phase, ``(starts,)``.
    """

    phases_ms: Mapping[str, Samples]

    @property
    def samples_ms(self) -> Samples:
        """The whole of each start, ``(starts,)``."""
        total: Samples = np.sum([self.phases_ms[phase] for phase in PHASES], axis=0)
        return total

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON."""
        return {
            "starts": len(self.samples_ms),
            "total_ms": asdict(median(self.samples_ms)),
            "phases_ms": {phase: float(np.median(values)) for phase, values in self.phases_ms.items()},
            "samples_ms": [round(float(value), 6) for value in self.samples_ms],
        }


@dataclass
class ColdStart:
    """Cold starts of several contestants.

    Attributes:
        contestants: by name.
        interrupted: whether it ended before its time; it then holds the whole turns.
        warnings: what casts doubt on the figures.
    """

    contestants: Mapping[str, Starts]
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> Interval | None:
        """The separate models' time over the shared one's: the median over turns; None where one of them was not started."""
        if not {SHARED, SEPARATE} <= set(self.contestants):
            return None
        return median(self.contestants[SEPARATE].samples_ms / self.contestants[SHARED].samples_ms)

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON."""
        return {
            "contestants": {name: starts.to_dict() for name, starts in self.contestants.items()},
            "ratio": None if self.ratio is None else asdict(self.ratio),
        }


def median(samples: Samples) -> Interval:
    """Return a median and the order statistics that bound it; of five or fewer, the smallest and the largest.

    The smallest and the largest of n hold the true median with probability 1 - 2 / 2^n: 94 % of five.
    """
    bounded = quantile(samples, 0.5)
    return bounded or Interval(float(np.median(samples)), float(samples.min()), float(samples.max()))


def measure_cold_start(
    specs: Sequence[Spec],
    batch: Batch,
    *,
    starts: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> ColdStart:
    """Start each contestant several times in a fresh process, in turn, the order shuffled in each turn.

    One start of each comes first and is not counted: it brings the files into the page cache and lets libraries write their caches
    (Python's bytecode, TensorRT-RTX's compiled kernels).

    Args:
        specs: ``shared``, ``separate`` and subsets; others are left out: no application starts like that.
        batch: of the first prediction.
        starts: of each.
        seed: of the order.
        progress: shows what is being measured.

    Returns:
        What was measured; after Ctrl-C, the turns that were whole.

    Raises:
        OptionError: less than one start.
        WorkError: a start failed.
        KeyboardInterrupt: no turn was whole.
    """
    if starts < 1:
        raise OptionError(f"{starts} cold starts: use 1 or more")
    specs = [spec for spec in specs if spec.kind in (SHARED, SEPARATE, SUBSET)]
    turns: list[dict[str, dict[str, float]]] = []
    interrupted = False
    rng = np.random.default_rng(seed)
    with temporary_folder() as folder:
        file = folder / "batch.npy"
        np.save(file, batch)
        try:
            for turn in range(starts + 1):
                progress(f"Cold start: {turn} of {starts}" if turn else "Cold start: filling caches")
                done = {specs[i].name: _start(specs[i], file) for i in rng.permutation(len(specs))}
                if turn:
                    turns.append(done)
        except KeyboardInterrupt:
            if not turns:
                raise
            interrupted = True
    contestants = {
        spec.name: Starts({phase: np.array([turn[spec.name][phase] for turn in turns]) for phase in PHASES})
        for spec in specs
    }
    found = ColdStart(contestants, interrupted)
    if len(turns) < _FEWEST:
        found.warnings.append(f"the cold start rests on {len(turns)} of each contestant: its interval says little")
    if interrupted:
        found.warnings.append(f"the cold starts were interrupted after {len(turns)} of {starts}")
    return found


def _start(spec: Spec, batch: Path) -> dict[str, float]:
    """Return the phases of one start in milliseconds."""
    settings = spec.settings
    keywords: dict[str, Any] = {
        "threads": settings.threads,
        "spinning": settings.spinning,
        "cuda_graphs": _GRAPHS if settings.cuda_graphs else 0,
    }
    if not spec.engines:
        keywords |= {"providers": settings.providers, "backend": settings.backend}
    if spec.kind == SUBSET:
        keywords["tasks"] = spec.tasks
    plan = json.dumps([[str(spec.path / artifact.path), keywords] for artifact in spec.artifacts])
    begun = time.monotonic_ns()
    command = command_of(_CHILD, plan, str(batch))
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    ended = Ended(result.returncode, result.stdout, result.stderr)
    if not ended.succeeded:
        raise WorkError(f"the cold start of {spec.name} failed: {ended.reason}")
    stamps = json.loads(ended.result)
    spans = {
        "python": stamps["started"] - begun,
        "imports": stamps["imported"] - stamps["started"],
        "load": stamps["loaded"] - stamps["loading"],
        "first_prediction": stamps["predicted"] - stamps["loaded"],
    }
    return {phase: nanoseconds / 1e6 for phase, nanoseconds in spans.items()}
