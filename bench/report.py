"""The result of a measurement: as tables and a sentence for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .contestants import FORMS
from .engine_timings import EngineTimings
from .measure import Measurement
from .memory import Memory
from .pair import Pair, Settings
from .statistics import ENOUGH_ROUNDS, Interval, Samples, quantile, ratio, spread
from .tables import QUANTILES, SIDES, notes, render

SCHEMA_VERSION = 1
NOISY = 0.1  # spread of the rounds from which a warning is due

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Report:
    """A finished measurement of one batch size.

    Attributes:
        pair: what was compared.
        settings: how it was run.
        batch: images a call.
        backend: the library and the provider that ran both sides.
        measurement: the samples, by contestant: both sides, and for engines the other forms of the separate side.
        memory: by side; empty where it was not measured.
        environment: see :func:`~mtl_deploy.bench.environment.environment`.
        warnings: what speaks against the figures.
        seed: of the bootstrap.
        timings: of engines, on the GPU's clock; None where they were not measured.
        activations: bytes of activation memory that the engines of a side need, by side; empty for graphs.
    """

    pair: Pair
    settings: Settings
    batch: int
    backend: str
    measurement: Measurement
    memory: dict[str, Memory]
    environment: dict[str, Any]
    warnings: list[str]
    seed: int
    timings: EngineTimings | None = None
    activations: Mapping[str, int] = field(default_factory=dict)
    _ratios: dict[str, Interval] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms of the separate side that were measured; the first is in sequence, as ``separate`` says everywhere."""
        return tuple(name for name in FORMS if name in self.measurement.samples)

    @property
    def speedup(self) -> Interval:
        """How many times the separate models in sequence take the shared pass's time."""
        return self.ratio_to("separate")

    def ratio_to(self, form: str) -> Interval:
        """Return how many times a form of the separate side takes the shared pass's time."""
        if form not in self._ratios:
            self._ratios[form] = ratio(self.rounds_of(form), self.rounds_of("shared"), seed=self.seed)
        return self._ratios[form]

    @cached_property
    def ideal(self) -> float:
        """The ratio of the multiply-adds: what sharing would gain if each cost the same time."""
        return sum(artifact.multiply_adds for artifact in self.pair.separate) / max(self.pair.shared.multiply_adds, 1)

    def rounds_of(self, name: str) -> list[Samples]:
        """Return a contestant's samples, by whole round."""
        return self.measurement.samples[name][: self.measurement.rounds]

    def throughput(self, name: str) -> float:
        """Return a contestant's images a second."""
        return 1000 * self.batch / float(self.measurement.calls(name).mean())

    def total(self, side: str, field: str) -> int:
        """Return the sum of a manifest's field over a side's files."""
        return sum(getattr(artifact, field) for artifact in self.pair.side(side))

    def all_warnings(self) -> list[str]:
        """Return the warnings, with those that the samples give rise to."""
        found = list(self.warnings)
        for name in ("shared", *self.forms):
            who = f"the {name} side" if name in SIDES else f"the separate side {FORMS[name]}"
            if (noise := spread(self.rounds_of(name))) > NOISY:
                theirs = f"{who}'s rounds" if name in SIDES else f"the rounds of {who}"
                found.append(f"{theirs} spread by {100 * noise:.0f} %: something else ran on the machine")
            if not self.measurement.warm_up[name].stable:
                found.append(f"{who} had not settled when its warm-up ended")
        if self.measurement.rounds < ENOUGH_ROUNDS:
            found.append(
                f"the interval comes from {self.measurement.rounds} rounds and is too narrow; {ENOUGH_ROUNDS} or more make "
                "it reliable: measure for longer with --duration"
            )
        return found

    def text(self) -> str:
        """Return the tables and the answer."""
        return f"{render(self)}\n\n{notes(self)}{self.answer()}\n"

    def answer(self) -> str:
        """Return what was found, in one sentence."""
        count = len(self.pair.separate)
        number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
        ideal = f"the multiply-adds allow {self.ideal:.2f}"
        if self.pair.engines:
            verdicts = ", ".join(f"{FORMS[name]} {_verdict(self.ratio_to(name))}" for name in self.forms)
            fastest = min(self.forms, key=lambda name: self.ratio_to(name).value)
            reached = (
                f"{100 * self.ratio_to(fastest).value / self.ideal:.0f} % of the ideal against the fastest of these"
            )
            return f"One shared pass against {number} separate engines: {verdicts}; {ideal}: {reached}."
        found = self.speedup
        models = f"{number} separate models"
        interval = f"95 % interval {found.low:.2f} to {found.high:.2f}"
        if found.contains(1):
            return f"No difference between one shared pass and {models} ({interval}); {ideal}."
        if found.value < 1:
            return f"One shared pass takes {1 / found.value:.2f} times the time of {models} (ratio {found.value:.2f}, {interval})."
        reached = f"{100 * found.value / self.ideal:.0f} % of the ideal"
        return f"One shared pass is {found.value:.2f} times as fast as {models} ({interval}); {ideal}: {reached}."

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        pair = self.pair
        document = {
            "schema_version": SCHEMA_VERSION,
            "bundle": str(pair.bundle.path),
            "precision": pair.shared.precision,
            "batch": self.batch,
            "settings": asdict(self.settings),
            "backend": self.backend,
            "rounds": self.measurement.rounds,
            "ratio": self._ratio("separate"),
            "ideal_ratio": self.ideal,
            "of_ideal": self.speedup.value / self.ideal,
            "sides": {side: self._side(side) for side in SIDES},
            "environment": self.environment,
            "warnings": self.all_warnings(),
            "answer": self.answer(),
            "seed": self.seed,
        }
        if pair.engines:
            others = [name for name in self.forms if name not in SIDES]
            document["forms"] = {
                name: {"ratio": self._ratio(name), "of_ideal": self.ratio_to(name).value / self.ideal}
                | self._speed(name)
                for name in others
            }
            document["engine_timings"] = None if self.timings is None else self.timings.to_dict()
        return document

    def _ratio(self, form: str) -> dict[str, Any]:
        found = self.ratio_to(form)
        return asdict(found) | {"confidence": 0.95, "difference": not found.contains(1), "form": FORMS[form]}

    def _speed(self, name: str) -> dict[str, Any]:
        calls = self.measurement.calls(name)
        latency: dict[str, Any] = {"mean": float(calls.mean())}
        for word, share in QUANTILES.items():
            estimate = quantile(calls, share)
            latency[word] = None if estimate is None else asdict(estimate)
        return {
            "calls": len(calls),
            "warm_up": asdict(self.measurement.warm_up[name]),
            "latency_ms": latency,
            "images_per_s": self.throughput(name),
            "round_spread": spread(self.rounds_of(name)),
            "samples_ms": [[round(float(value), 6) for value in samples] for samples in self.rounds_of(name)],
        }

    def _side(self, side: str) -> dict[str, Any]:
        memory = self.memory.get(side)
        return {
            "artifacts": [artifact.path for artifact in self.pair.side(side)],
            "size_bytes": self.total(side, "size_bytes"),
            "parameters": self.total(side, "parameters"),
            "multiply_adds": self.total(side, "multiply_adds"),
            "memory_bytes": None if memory is None else asdict(memory) | {"models": memory.models},
            "activation_bytes": self.activations.get(side),
        } | self._speed(side)


def _verdict(found: Interval) -> str:
    interval = f"(95 % interval {found.low:.2f} to {found.high:.2f})"
    if found.contains(1):
        return f"no difference {interval}"
    if found.value < 1:
        return f"{1 / found.value:.2f} times as slow {interval}"
    return f"{found.value:.2f} times as fast {interval}"
