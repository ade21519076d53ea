"""What is measured at every batch size, and how: made once, from the command's options and the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl_deploy.bench.contestants.pair import Pair, Settings
from mtl_deploy.bench.contestants.specs import Spec

SECONDS_PER_CONTESTANT = 6.0  # of measuring, at each batch size, unless --duration says otherwise


@dataclass(frozen=True)
class BenchmarkPlan:
    """A whole measurement, before it begins.

    Attributes:
        pair: what is compared.
        specs: the contestants, the shared one first.
        settings: how they are run.
        batches: images per call, growing.
        isolated: whether each contestant gets a process of its own.
        processes: how often all contestants are started anew.
        duration: seconds to measure latency at a batch size; None: :data:`SECONDS_PER_CONTESTANT` for each.
        seed: of the images and the orders.
        memory: whether to measure memory too.
        quick: whether the sections that were not asked for by name are left out.
        beside: whether to measure sections beside the latencies at all.
        sections: the sections' options by key, a frozen dataclass each; see :mod:`~mtl_deploy.bench.sections.base`.
        environment: see :func:`~mtl_deploy.bench.machine.environment.environment`; as it was before anything ran.
        command: that was given.
        builds: the contestants with engines that were built anew; each start of all contestants takes the next ones. Empty: the
            bundle's own.
        notes: what casts doubt on the figures before anything runs.
        words: what is measured, for the progress line.
    """

    pair: Pair
    specs: tuple[Spec, ...]
    settings: Settings
    batches: tuple[int, ...]
    isolated: bool
    processes: int
    duration: float | None
    seed: int
    memory: bool
    quick: bool
    beside: bool
    sections: Mapping[str, Any]
    environment: dict[str, Any]
    command: str
    builds: tuple[tuple[Spec, ...], ...] = ()
    notes: tuple[str, ...] = ()
    words: str = "latency"

    @property
    def seconds(self) -> float:
        """How long latency is measured at a batch size."""
        return SECONDS_PER_CONTESTANT * len(self.specs) if self.duration is None else self.duration

    @property
    def slot_seconds(self) -> float:
        """A contestant's share of that, over all rounds and processes."""
        return self.seconds / len(self.specs)

    def started(self, number: int) -> tuple[Spec, ...]:
        """Return the contestants of one start of all, which count from 0."""
        return self.builds[number % len(self.builds)] if self.builds else self.specs
