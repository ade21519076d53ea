"""The result of one batch size: its figures, its warnings and its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.memory import Memory
from mtl_deploy.bench.contestants.pair import Pair, Settings
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, Spec
from mtl_deploy.bench.measurement.agreement import Agreement
from mtl_deploy.bench.measurement.measure import Measurement
from mtl_deploy.bench.sections.base import Sections
from mtl_deploy.bench.sections.where.section import heads_share, ideal_multiply_adds, ideal_weights
from mtl_deploy.bench.statistics.derived import mean, ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, process_spread, quantile, spread

from . import tables, wording

NOISY = 0.1  # spread of the rounds from which a warning is due
WIDE = 0.05  # half of a ratio's interval, as a share of the ratio, from which one is due
ENOUGH_PROCESSES = 3
ENOUGH_ROUNDS = 3  # in one process: a single round has no interval
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Report:
    """A finished measurement of one batch size.

    Attributes:
        pair: what was compared.
        specs: the contestants that were measured, by name; the shared one first.
        settings: how they were run.
        batch: images a call.
        details: each contestant's library and device.
        measurement: the samples.
        memory: by contestant; empty where it was not measured.
        environment: see :func:`~mtl_deploy.bench.machine.environment.environment`.
        notes: what speaks against the figures, beside what the samples say.
        seed: of the bootstrap.
        excluded: contestants that were not measured, with the reason.
        agreement: by contestant and task, how far its outputs are from the shared ones.
        activations: bytes of activation memory that a contestant's engines need; empty for graphs.
        sections: beside the latencies.
    """

    pair: Pair
    specs: Mapping[str, Spec]
    settings: Settings
    batch: int
    details: Mapping[str, str]
    measurement: Measurement
    memory: Mapping[str, Memory]
    environment: Mapping[str, Any]
    notes: list[str]
    seed: int
    excluded: Mapping[str, str] = field(default_factory=dict)
    agreement: Mapping[str, Mapping[str, Agreement]] = field(default_factory=dict)
    activations: Mapping[str, int] = field(default_factory=dict)
    sections: Sections = field(default_factory=lambda: Sections({}, []))

    @property
    def others(self) -> tuple[str, ...]:
        """All contestants but the shared one, which they are compared with."""
        return tuple(name for name in self.specs if name != SHARED)

    @property
    def main(self) -> str | None:
        """The contestant that the answer is about: the separate models in sequence where they were measured."""
        return SEPARATE if SEPARATE in self.specs else next(iter(self.others), None)

    def nested(self, name: str) -> Nested:
        """Return a contestant's samples by process, round and call."""
        return self.measurement.nested(name)

    @cached_property
    def ratios(self) -> Mapping[str, Interval]:
        """By contestant, how many times it takes the shared pass's time."""
        return {name: ratio(self.nested(name), self.nested(SHARED), seed=self.seed) for name in self.others}

    @cached_property
    def means(self) -> Mapping[str, Interval]:
        """By contestant, the mean latency in milliseconds."""
        return {name: mean(self.nested(name), seed=self.seed) for name in self.specs}

    @cached_property
    def quantiles(self) -> Mapping[str, Mapping[str, Interval | None]]:
        """By contestant and name, the quantiles of latency in milliseconds."""
        calls = {name: self.measurement.calls(name) for name in self.specs}
        return {name: {word: quantile(calls[name], share) for word, share in QUANTILES.items()} for name in self.specs}

    @property
    def ideal(self) -> float:
        """The ratio of the multiply-adds: what sharing would gain if each cost the same time."""
        return ideal_multiply_adds(self.pair)

    @property
    def heads_share(self) -> float:
        """The share of the shared pass's multiply-adds that one task alone needs; they are not shared, and bound the ideal."""
        return heads_share(self.pair)

    @property
    def ideal_bytes(self) -> float | None:
        """The ratio of the weights that are read: what sharing would gain if time went with them; None where a graph is missing."""
        return ideal_weights(self.pair)

    def throughput(self, name: str) -> float:
        """Return a contestant's images a second."""
        return 1000 * self.batch / self.means[name].value

    def warnings(self) -> list[str]:
        """Return what speaks against the figures."""
        found = list(self.notes)
        noise = {spec.title: spread(self.nested(name)) for name, spec in self.specs.items()}
        noisy = [f"of {title} spread by {100 * share:.0f} %" for title, share in noise.items() if share > NOISY]
        if noisy:
            found.append(f"the rounds {', '.join(noisy)}: something else ran on the machine, or its clock varied")
        stable = {name: all(one.stable for one in self.measurement.warm_up[name]) for name in self.specs}
        unsettled = [self.specs[name].title for name, settled in stable.items() if not settled]
        if unsettled:
            found.append(f"not settled when the warm-up ended: {'; '.join(unsettled)}")
        half = {name: (one.high - one.low) / 2 / one.value for name, one in self.ratios.items()}
        wide = [f"{self.specs[name].title} ({100 * share:.0f} %)" for name, share in half.items() if share > WIDE]
        if wide:
            found.append(
                "the machine was too noisy, or the time too short, for more than a rough ratio of these; half the width of their "
                f"intervals: {'; '.join(wide)}. Measure for longer with --duration, or in more --processes"
            )
        return found + self._few() + self.sections.all_warnings()

    def _few(self) -> list[str]:
        processes, rounds = self.measurement.processes, self.measurement.rounds
        if processes == 1 and rounds < ENOUGH_ROUNDS:
            return [
                f"the intervals come from {rounds} round{'s' if rounds > 1 else ''}: measure for longer with --duration"
            ]
        if processes < ENOUGH_PROCESSES:
            number = "one process" if processes == 1 else f"{processes} processes"
            what = "do not cover" if processes == 1 else "are wide, since they hardly know"
            return [
                f"the intervals come from {number} and {what} what a restart changes; measure with --processes {ENOUGH_PROCESSES}"
            ]
        return []

    def answer(self) -> str:
        """Return what was found, in one sentence."""
        return wording.answer(self)

    def text(self, further: Sequence[str] = (), warnings: Sequence[str] = ()) -> str:
        """Return the tables, the warnings and the answer.

        Args:
            further: tables to print behind its own: those of the whole run, where it is the only batch size.
            warnings: likewise.
        """
        end = [*(f"warning: {warning}" for warning in [*self.warnings(), *warnings]), self.answer()]
        return "\n\n".join([tables.render(self), *self.sections.text(), *further, "\n".join(end)])

    def to_dict(self) -> dict[str, Any]:
        """Return this batch size's part of the JSON document."""
        found = self.ratios
        main = found.get(SEPARATE)
        sections = {"engine_timings": None, "where": None, "open_loop": None, "energy": None} | self.sections.to_dict()
        return {
            "batch": self.batch,
            "processes": self.measurement.processes,
            "rounds": self.measurement.rounds,
            "contestants": {name: self._contestant(name) for name in self.specs},
            "agreement": {
                name: {task: asdict(one) for task, one in tasks.items()}
                for name, tasks in self.agreement.items()
                if name in self.specs
            },
            "ratios": {
                name: asdict(one) | {"confidence": 0.95, "difference": not one.contains(1)}
                for name, one in found.items()
            },
            "of_ideal": None if main is None else main.value / self.ideal,
            **sections,
            "warnings": self.warnings(),
            "answer": self.answer(),
        }

    def _contestant(self, name: str) -> dict[str, Any]:
        memory, parts, nested = self.memory.get(name), self.measurement.parts_ms.get(name), self.nested(name)
        quantiles = {word: None if one is None else asdict(one) for word, one in self.quantiles[name].items()}
        return {
            "calls": len(self.measurement.calls(name)),
            "warm_up": [asdict(one) for one in self.measurement.warm_up[name]],
            "latency_ms": {"mean": asdict(self.means[name])} | quantiles,
            "images_per_s": self.throughput(name),
            "round_spread": spread(nested),
            "process_spread": process_spread(nested),
            "parts_ms": {task: float(np.median(times)) for task, times in parts.items()} if parts else None,
            "memory_bytes": None if memory is None else asdict(memory) | {"models": memory.models},
            "activation_bytes": self.activations.get(name),
            "samples_ms": [[[round(float(v), 6) for v in calls] for calls in rounds] for rounds in nested],
        }
