"""Measuring once more, with other settings or another bundle: shared and separate alone, for sections that compare runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, chosen_specs
from mtl_deploy.bench.measurement.measure import Measurement
from mtl_deploy.bench.sections.base import Remeasure, Words
from mtl_deploy.bench.statistics.nested import Nested
from mtl_deploy.runtime.console.command import Progress

from .plan import BenchmarkPlan
from .run import measure_batch


def remeasuring(
    plan: BenchmarkPlan, size: int, measured: Measurement, progress: Progress
) -> Callable[[Words], Remeasure]:
    """Return what :class:`~mtl_deploy.bench.sections.base.RunContext` calls ``again``.

    It measures a bundle, or an artifact in one, with some settings. Each contestant gets the time that it had in the run, and is
    started as often. What the run itself has measured is not measured again.

    Args:
        plan: of the run.
        size: images per call.
        measured: by the run at this size.
        progress: shows what is being measured.

    Returns:
        A function that is given words for the progress line and returns the one that measures. That gives the samples of shared and
        separate, and raises what :func:`~mtl_deploy.bench.run.measure_batch` raises, and KeyboardInterrupt where it was interrupted
        in its middle.
    """
    own = plan.pair.bundle.path / plan.pair.shared.path

    def again(words: Words) -> Remeasure:
        def measure(path: Path, settings: Settings) -> Mapping[str, Nested]:
            if (path, settings) == (own, plan.settings) and SEPARATE in measured.names:
                return {name: measured.nested(name) for name in (SHARED, SEPARATE)}
            pair = find_pair(path, plan.pair.shared.precision, settings.providers, plan.pair.backend)
            specs = tuple(chosen_specs(pair, settings, only=(SEPARATE,)))
            changed = replace(
                plan,
                pair=pair,
                specs=specs,
                settings=settings,
                duration=plan.slot_seconds * len(specs),
                memory=False,
                beside=False,
                builds=(),
                words=f"latency with {words(path, settings)}",
            )
            report, interrupted = measure_batch(changed, size, progress)
            if interrupted:
                raise KeyboardInterrupt
            return {name: report.nested(name) for name in (SHARED, SEPARATE)}

        return measure

    return again
