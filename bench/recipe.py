"""``--recipe ci``: the shortest run that detects a regression, as far as a short pilot can tell on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mtl_deploy.bench.contestants.specs import SHARED
from mtl_deploy.bench.measurement import measure
from mtl_deploy.bench.statistics.nested import Nested, location, spread
from mtl_deploy.bench.statistics.power import MOST_STARTS, POWER, starts_to_detect
from mtl_deploy.runtime.console.command import Progress

from .plan import BenchmarkPlan
from .run import measure_batch

CHANGE = 0.05  # a regression by so much is to be detected
PILOT_STARTS = 6
ROUNDS = 4  # of a start, in the pilot and in the run: starting takes longer than they do


@dataclass(frozen=True)
class Estimate:
    """What a pilot says that a run needs.

    Attributes:
        pilot_s: seconds that the pilot took.
        between: how much starts differ: the standard deviation of the logarithms of their times.
        within: how much rounds of one start differ.
        starts: of the run, and as many of the one that it is compared with.
        seconds: that the run will take, for all batch sizes.
    """

    pilot_s: float
    between: float
    within: float
    starts: int
    seconds: float

    def sentence(self) -> str:
        """Return it for people, in one line."""
        seen = (
            f"in a pilot of {PILOT_STARTS} starts, {self.pilot_s:.0f} s, starts differed by {100 * self.between:.1f} % and rounds "
            f"of a start by {100 * self.within:.1f} %"
        )
        if self.starts >= MOST_STARTS:
            return (
                f"{seen}: this machine is too noisy to detect a change of {100 * CHANGE:.0f} % in {MOST_STARTS} starts"
            )
        return (
            f"{seen}; to detect a change of {100 * CHANGE:.0f} % with a power of {100 * POWER:.0f} % it takes {self.starts} starts "
            f"of {ROUNDS} rounds, here and in the run that it is compared with: about {self.seconds:.0f} s"
        )


def estimate(pilot: Nested, pilot_s: float, batches: int = 1) -> Estimate:
    """Estimate the run from a pilot.

    Args:
        pilot: the shared artifact's samples, by start, round and call.
        pilot_s: seconds that it took, with starting and warming up.
        batches: batch sizes that the run measures, each of them started anew.
    """
    logs = [math.log(location([rounds])) for rounds in pilot]
    between = float(np.std(logs, ddof=1))
    starts = starts_to_detect(between, len(logs), math.log1p(CHANGE))
    return Estimate(pilot_s, between, spread(pilot), starts, batches * starts * pilot_s / len(logs))


def ci_plan(plan: BenchmarkPlan, progress: Progress, say: Callable[[str], object]) -> BenchmarkPlan:
    """Measure a pilot at the smallest batch, say how long the run will take, and return its plan.

    Args:
        plan: what is to be measured; its number of starts and its duration are replaced.
        progress: shows what is being measured.
        say: is given the sentence.

    Raises:
        MtlError: measuring failed.
        KeyboardInterrupt: the pilot was interrupted.
    """
    seconds = ROUNDS * measure.SLOT_S * len(plan.specs)
    pilot = replace(
        plan,
        processes=PILOT_STARTS,
        duration=PILOT_STARTS * seconds,
        memory=False,
        beside=False,
        words="a pilot",
    )
    began = time.monotonic()
    report, interrupted = measure_batch(pilot, min(plan.batches), progress)
    if interrupted:
        raise KeyboardInterrupt
    found = estimate(report.nested(SHARED), time.monotonic() - began, len(plan.batches))
    say(found.sentence())
    return replace(plan, processes=found.starts, duration=found.starts * seconds)
