"""Measuring one batch size from beginning to end, and several in turn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.console import Progress
from mtl_deploy.runtime.errors import DeviceLostError, RunError, WorkError

from .contestants import Contestant, Side, require_agreement, start, start_forms
from .engine_timings import EngineTimings, measure_timings
from .environment import warnings
from .measure import Measurement, measure
from .memory import Memory, peak_memory
from .pair import Batch, Pair, Settings, make_batch
from .report import Report
from .tables import SIDES


@dataclass(frozen=True)
class Plan:
    """What is measured at every batch size.

    Attributes:
        pair: what is compared.
        settings: how it is run.
        duration: seconds to measure latency.
        seed: of the images and the bootstrap.
        memory: whether to measure memory too.
        environment: see :func:`~mtl_deploy.bench.environment.environment`; as it was before anything ran.
    """

    pair: Pair
    settings: Settings
    duration: float
    seed: int
    memory: bool
    environment: dict[str, Any]


def run(plan: Plan, size: int, progress: Progress) -> tuple[Report, bool]:
    """Measure one batch size.

    Args:
        plan: what and how.
        size: images a call.
        progress: told where the work is.

    Returns:
        The report, and whether it was interrupted; it then holds what was measured so far.

    Raises:
        OptionError: the artifacts do not take such a batch.
        WorkError: the contestants disagree, or running failed.
        KeyboardInterrupt: nothing was measured yet.
    """
    pair, settings = plan.pair, plan.settings
    batch = make_batch(pair, size, plan.seed)
    notes = warnings(plan.environment)
    if pair.misfit is not None:
        notes.append(f"{pair.misfit}; the graphs were measured")
    measurement = Measurement({})
    timings: EngineTimings | None = None
    found: dict[str, Memory] = {}
    interrupted = False
    with ExitStack() as stack:
        with progress.step("Measuring latency") as say:
            sides = [stack.enter_context(closing(start(pair, side, settings))) for side in SIDES]
            contestants = _contestants(pair, sides, settings, batch, notes, stack)
            measurement.samples |= {contestant.name: [] for contestant in contestants}
            try:
                measure(contestants, batch, plan.duration, measurement, progress=progress.update)
            except KeyboardInterrupt:
                if measurement.rounds == 0:
                    raise
                interrupted = True
            say(f"{measurement.rounds} rounds")
        off = next((reason for side in sides if (reason := side.graphs_off)), None)
        if settings.cuda_graphs and off is not None:
            notes.append(f"CUDA graphs were off although asked for: {off}")
        if pair.engines and not interrupted:
            timings, interrupted = _timings(sides, batch, settings, notes, progress)
        details, activations = sides[0].details, _activations(sides)
    if plan.memory and not interrupted:  # last: both sides have loaded by now, and are freed again
        try:
            with progress.step("Measuring memory"):
                found = {side: peak_memory(pair, side, size, settings) for side in SIDES}
        except KeyboardInterrupt:
            interrupted = True
        except WorkError as error:  # the latencies are good without it
            notes.append(str(error))
    if interrupted:
        notes.append("interrupted before its time")
    report = Report(
        pair=pair,
        settings=settings,
        batch=size,
        backend=details,
        measurement=measurement,
        memory=found,
        environment=plan.environment,
        warnings=notes,
        seed=plan.seed,
        timings=timings,
        activations=activations,
    )
    return report, interrupted


def _contestants(
    pair: Pair, sides: list[Side], settings: Settings, batch: Batch, notes: list[str], stack: ExitStack
) -> list[Contestant]:
    """Return all contestants, whose outputs agree."""
    contestants: list[Contestant] = list(sides)
    require_agreement(sides[0], sides[1], batch, pair)
    if pair.engines:
        for form in start_forms(sides[1], len(batch), settings, notes):
            stack.enter_context(closing(form))
            require_agreement(sides[0], form, batch, pair)
            contestants.append(form)
    return contestants


def _timings(
    sides: list[Side], batch: Batch, settings: Settings, notes: list[str], progress: Progress
) -> tuple[EngineTimings | None, bool]:
    """Measure on the GPU's clock; the latencies are good without it."""
    try:
        with progress.step("Measuring on the GPU's clock"):
            return measure_timings(sides, batch, graphs=settings.cuda_graphs, progress=progress.update), False
    except KeyboardInterrupt:
        return None, True
    except DeviceLostError:
        raise
    except RunError as error:
        notes.append(f"the GPU timings were not measured: {error}")
        return None, False


def _activations(sides: list[Side]) -> Mapping[str, int]:
    return {
        side.name: sum(engine.loaded.library.device_memory_size(engine.loaded.engine) for engine in side.engines)
        for side in sides
        if side.engines
    }
