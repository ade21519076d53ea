"""The result of a measurement: as a table and a sentence for people, as JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mtl_deploy.runtime.console import table

from .contestants import Pair, Settings
from .measure import Measurement
from .memory import Memory
from .statistics import ENOUGH_ROUNDS, Interval, quantile, ratio, spread

SCHEMA_VERSION = 1
SIDES = ("shared", "separate")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
NOISY = 0.1  # spread of the rounds from which a warning is due

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Report:
    """A finished measurement.

    Attributes:
        pair: what was compared.
        settings: how it was run.
        batch: images a call.
        backend: the library and the provider that ran both sides.
        measurement: the samples.
        memory: by side; empty where it was not measured.
        environment: see :func:`~mtl_deploy.bench.environment.environment`.
        warnings: what speaks against the figures.
        seed: of the bootstrap.
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

    @cached_property
    def speedup(self) -> Interval:
        """How many times the separate models take the shared pass's time."""
        samples, rounds = self.measurement.samples, self.measurement.rounds
        return ratio(samples["separate"][:rounds], samples["shared"][:rounds], seed=self.seed)

    @property
    def ideal(self) -> float:
        """The ratio of the multiply-adds: what sharing would gain if each cost the same time."""
        return sum(artifact.multiply_adds for artifact in self.pair.separate) / max(self.pair.shared.multiply_adds, 1)

    def all_warnings(self) -> list[str]:
        """Return the warnings, with those that the samples give rise to."""
        found = list(self.warnings)
        for side in SIDES:
            if (noise := spread(self._rounds(side))) > NOISY:
                found.append(
                    f"the {side} side's rounds spread by {100 * noise:.0f} %: something else ran on the machine"
                )
            if not self.measurement.warm_up[side].stable:
                found.append(f"the {side} side had not settled when its warm-up ended")
        if self.measurement.rounds < ENOUGH_ROUNDS:
            found.append(
                f"the interval comes from {self.measurement.rounds} rounds and is too narrow; {ENOUGH_ROUNDS} or more make "
                "it reliable: measure for longer with --duration"
            )
        return found

    def text(self) -> str:
        """Return the table and the answer."""
        pair, count = self.pair, len(self.pair.separate)
        images = f"{self.batch} image" + ("s" if self.batch > 1 else "")
        threads = "default threads"
        if self.settings.threads is not None:
            threads = f"{self.settings.threads} thread" + ("s" if self.settings.threads > 1 else "")
        where = (
            f"{self.environment['processor'] or self.environment['machine']}, {self.environment['usable_cores']} cores"
        )
        header = (
            f"{pair.bundle.path}: {pair.shared.precision}, {images} a call, {threads}; {self.measurement.rounds} rounds in turn\n"
            f"{where}; {self.backend}\n"
        )
        cut = (
            "n/a: too few calls to bound the quantile; measure for longer with --duration.\n"
            if self._cut_short()
            else ""
        )
        notes = self._tails() + cut + "".join(f"warning: {warning}\n" for warning in self.all_warnings())
        rows = [[label, *cells] for label, cells in self._rows()]
        return f"{header}\n{table(['', 'shared', f'{count} separate', 'ratio'], rows)}\n\n{notes}{self.answer()}\n"

    def _tails(self) -> str:
        """Say how well the calls bound the p99."""
        bounds = {side: quantile(self.measurement.calls(side), QUANTILES["p99"]) for side in SIDES}
        ends = [f"{side} {found.low:.2f} to {found.high:.2f}" for side, found in bounds.items() if found is not None]
        return f"p99, 95 % intervals in ms: {', '.join(ends)}.\n" if ends else ""

    def _cut_short(self) -> bool:
        return any(
            quantile(self.measurement.calls(side), share) is None for side in SIDES for share in QUANTILES.values()
        )

    def answer(self) -> str:
        """Return what was found, in one sentence."""
        found = self.speedup
        count = len(self.pair.separate)
        models = f"{_NUMBERS[count] if count < len(_NUMBERS) else count} separate models"
        interval = f"95 % interval {found.low:.2f} to {found.high:.2f}"
        ideal = f"the multiply-adds allow {self.ideal:.2f}"
        if found.contains(1):
            return f"No difference between one shared pass and {models} ({interval}); {ideal}."
        if found.value < 1:
            return f"One shared pass takes {1 / found.value:.2f} times the time of {models} (ratio {found.value:.2f}, {interval})."
        reached = f"{100 * found.value / self.ideal:.0f} % of the ideal"
        return f"One shared pass is {found.value:.2f} times as fast as {models} ({interval}); {ideal}: {reached}."

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        pair, found = self.pair, self.speedup
        return {
            "schema_version": SCHEMA_VERSION,
            "bundle": str(pair.bundle.path),
            "precision": pair.shared.precision,
            "batch": self.batch,
            "settings": asdict(self.settings),
            "backend": self.backend,
            "rounds": self.measurement.rounds,
            "ratio": asdict(found) | {"confidence": 0.95, "difference": not found.contains(1)},
            "ideal_ratio": self.ideal,
            "of_ideal": found.value / self.ideal,
            "sides": {side: self._side(side) for side in SIDES},
            "environment": self.environment,
            "warnings": self.all_warnings(),
            "answer": self.answer(),
            "seed": self.seed,
        }

    def _rounds(self, side: str) -> list[Any]:
        return self.measurement.samples[side][: self.measurement.rounds]

    def _side(self, side: str) -> dict[str, Any]:
        calls = self.measurement.calls(side)
        memory = self.memory.get(side)
        latency: dict[str, Any] = {"mean": float(calls.mean())}
        for name, share in QUANTILES.items():
            estimate = quantile(calls, share)
            latency[name] = None if estimate is None else asdict(estimate)
        return {
            "artifacts": [artifact.path for artifact in self.pair.side(side)],
            "calls": len(calls),
            "warm_up": asdict(self.measurement.warm_up[side]),
            "latency_ms": latency,
            "images_per_s": self._throughput(side),
            "round_spread": spread(self._rounds(side)),
            "size_bytes": self._sum(side, "size_bytes"),
            "parameters": self._sum(side, "parameters"),
            "multiply_adds": self._sum(side, "multiply_adds"),
            "memory_bytes": None if memory is None else asdict(memory) | {"models": memory.models},
            "samples_ms": [[round(float(value), 6) for value in samples] for samples in self._rounds(side)],
        }

    def _sum(self, side: str, field: str) -> int:
        return sum(getattr(artifact, field) for artifact in self.pair.side(side))

    def _throughput(self, side: str) -> float:
        return 1000 * self.batch / float(self.measurement.calls(side).mean())

    def _rows(self) -> list[tuple[str, list[str]]]:
        calls = {side: self.measurement.calls(side) for side in SIDES}
        rows = []
        for name, share in QUANTILES.items():
            rows.append(_row(f"latency {name}, ms", [_value(quantile(calls[side], share)) for side in SIDES], "{:.2f}"))
        rows.append(_row("latency mean, ms", [float(calls[side].mean()) for side in SIDES], "{:.2f}"))
        rows.append(
            _row("spread of rounds, %", [100 * spread(self._rounds(side)) for side in SIDES], "{:.1f}", ratio=False)
        )
        rows.append(_row("images a second", [self._throughput(side) for side in SIDES], "{:.1f}"))
        rows.append(_row("multiply-adds, G", self._of("multiply_adds", 1e9), "{:.3f}"))
        rows.append(_row("parameters, M", self._of("parameters", 1e6), "{:.2f}"))
        rows.append(_row("size on disk, MB", self._of("size_bytes", 1e6), "{:.1f}"))
        if self.memory:
            rows.append(_row("peak memory, MB", [self.memory[side].peak / 1e6 for side in SIDES], "{:.0f}"))
            rows.append(_row("  of it models, MB", [self.memory[side].models / 1e6 for side in SIDES], "{:.0f}"))
        return rows

    def _of(self, field: str, unit: float) -> list[float | None]:
        return [self._sum(side, field) / unit for side in SIDES]


def _value(estimate: Interval | None) -> float | None:
    return None if estimate is None else estimate.value


def _row(label: str, values: list[Any], form: str, *, ratio: bool = True) -> tuple[str, list[str]]:
    """Return a row's cells: both sides, and separate over shared."""
    show: Callable[[float | None], str] = lambda value: "n/a" if value is None else form.format(value)  # noqa: E731
    shared, separate = values
    quotient = separate / shared if ratio and shared and separate else np.nan
    return label, [show(shared), show(separate), "" if np.isnan(quotient) else f"{quotient:.2f}"]
