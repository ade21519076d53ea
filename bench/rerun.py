"""Measuring once more, with other settings or another bundle: shared and separate alone, for sections that compare runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_deploy.bench.contestants.pair import Settings, find_pair
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, chosen_specs
from mtl_deploy.bench.statistics.nested import Nested

from .run import run

if TYPE_CHECKING:
    from mtl_deploy.bench.sections.base import RunContext


def again(
    context: RunContext, words: Callable[[Path, Settings], str]
) -> Callable[[Path, Settings], Mapping[str, Nested]]:
    """Return a function that measures a bundle, or an artifact in one, with settings, at the run's smallest batch.

    Each contestant gets the time that it had in the run, and is started as often. What the run itself has measured is not
    measured again.

    Args:
        context: of the run.
        words: says with what is measured, for the progress line.

    Returns:
        The function; it gives the samples of shared and separate, and raises what :func:`~mtl_deploy.bench.run.run` raises, and
        KeyboardInterrupt where the measurement was interrupted in its middle.
    """
    plan, first = context.plan, context.reports[0]
    own = plan.pair.bundle.path / plan.pair.shared.path

    def measure(path: Path, settings: Settings) -> Mapping[str, Nested]:
        if (path, settings) == (own, plan.settings) and SEPARATE in first.specs:
            return {name: first.nested(name) for name in (SHARED, SEPARATE)}
        pair = find_pair(path, plan.pair.shared.precision, settings.providers, plan.pair.shared.backend)
        specs = tuple(chosen_specs(pair, settings, only=(SEPARATE,)))
        report, interrupted = run(
            replace(
                plan,
                pair=pair,
                specs=specs,
                settings=settings,
                duration=plan.slot_seconds * len(specs),
                memory=False,
                sections=False,
                builds=(),
                words=f"latency with {words(path, settings)}",
            ),
            first.batch,
            context.progress,
        )
        if interrupted:
            raise KeyboardInterrupt
        return {name: report.nested(name) for name in (SHARED, SEPARATE)}

    return measure
