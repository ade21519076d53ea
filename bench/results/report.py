"""The result as data, of one batch size and of the whole run: what was measured, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mtl_deploy.bench.contestants.memory import Memory
from mtl_deploy.bench.contestants.pair import Pair
from mtl_deploy.bench.contestants.specs import SEPARATE, SHARED, Spec
from mtl_deploy.bench.measurement.agreement import Agreement
from mtl_deploy.bench.measurement.measure import Measurement
from mtl_deploy.bench.plan import BenchmarkPlan
from mtl_deploy.bench.sections.base import Sections
from mtl_deploy.bench.sections.where.ideal import heads_share, ideal_multiply_adds, ideal_weights
from mtl_deploy.bench.statistics.derived import mean, ratio
from mtl_deploy.bench.statistics.nested import QUANTILES, Interval, Nested, nested_quantile


@dataclass(frozen=True)
class Report:
    """A finished measurement of one batch size.

    Attributes:
        pair: what was compared.
        specs: the contestants that were measured, by name; the shared one first.
        batch: images per call.
        details: each contestant's library and device.
        measurement: the samples.
        memory: by contestant; empty where it was not measured.
        notes: what casts doubt on the figures, beside what the samples say.
        excluded: contestants that were not measured, with the reason.
        agreement: by contestant and task, how far its outputs are from the shared ones.
        activations: bytes of activation memory that a contestant's engines need; empty for graphs.
        sections: what was measured beside the latencies.
    """

    pair: Pair
    specs: Mapping[str, Spec]
    batch: int
    details: Mapping[str, str]
    measurement: Measurement
    memory: Mapping[str, Memory]
    notes: list[str]
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
        return {name: ratio(self.nested(name), self.nested(SHARED)) for name in self.others}

    @cached_property
    def means(self) -> Mapping[str, Interval]:
        """By contestant, the mean latency in milliseconds."""
        return {name: mean(self.nested(name)) for name in self.specs}

    @cached_property
    def quantiles(self) -> Mapping[str, Mapping[str, Interval | None]]:
        """By contestant and name, the quantiles of latency in milliseconds."""
        return {
            name: {word: nested_quantile(self.nested(name), share) for word, share in QUANTILES.items()}
            for name in self.specs
        }

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
        """Return a contestant's images per second."""
        return 1000 * self.batch / self.means[name].value


@dataclass(frozen=True)
class Result:
    """A whole measurement.

    Attributes:
        plan: what was measured.
        reports: of each batch size, growing; one at least.
        sections: of the whole run.
        warnings: what casts doubt on the whole.
        before: the machine's state when measuring began; see :func:`~mtl_deploy.bench.machine.environment.snapshot`.
        after: the machine's state when measuring ended.
    """

    plan: BenchmarkPlan
    reports: Sequence[Report]
    sections: Sections
    warnings: Sequence[str] = ()
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
