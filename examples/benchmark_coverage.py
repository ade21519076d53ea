"""How often the benchmark's intervals hold the truth, and how wide they are: latencies are drawn, so that it is known.

    python examples/benchmark_coverage.py [--repeats N]

Each row is a scenario: starts, rounds and calls whose noise has a known size, on a machine that becomes slower meanwhile and varies
from round to round for both contestants. The interval is the one that ``mtl-bench`` prints, by the same function. Beside it stand
intervals that other methods give on the same draws: ``all levels`` resamples starts, rounds and calls (a hierarchical bootstrap,
widened for few starts), ``starts`` resamples starts alone (widened likewise), and ``rounds, t`` is Student's t interval that takes
the rounds of one process for independent. docs/benchmarking.md shows what it prints.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.statistics.derived import ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested, location, nested_quantile
from mtl_deploy.bench.statistics.student import student_t
from mtl_deploy.runtime.console.command import table

Array = npt.NDArray[np.float64]
RATIO = 2.9
RESAMPLES = 400


@dataclass(frozen=True)
class Scenario:
    """How latencies vary; standard deviations are shares of the latency.

    Attributes:
        starts: of both contestants.
        rounds: of a start.
        calls: of a round.
        restart: what a start changes for one contestant.
        bimodal: instead of that, every other start on average is slower by so much.
        round: how rounds of one contestant differ.
        memory: correlation of a round with the one before.
        call: how calls differ; they are skewed to longer times.
        outliers: share of the calls that take longer by a factor of 1 + a Pareto variable of index 1.5, which has no variance.
        machine: how the machine varies from round to round, for both contestants, with a correlation of 0.8.
        paired: whether both run side by side.
    """

    starts: int = 5
    rounds: int = 4
    calls: int = 12
    restart: float = 0.02
    bimodal: float = 0.0
    round: float = 0.02
    memory: float = 0.0
    call: float = 0.03
    outliers: float = 0.0
    machine: float = 0.05
    paired: bool = True

    def contestant(self, rng: np.random.Generator, scale: float, machine: Array) -> Array:
        """Return one contestant's latencies, ``(starts, rounds, calls)``."""
        shape = (self.starts, self.rounds)
        restart = self.restart * rng.standard_normal((self.starts, 1))
        if self.bimodal:
            restart = self.bimodal * (rng.random((self.starts, 1)) < 0.5)
        level = scale * np.exp(machine + restart + remembering(rng, shape, self.memory, self.round))
        found: Array = level[..., None] * np.exp(self.call * (rng.gamma(2.0, 1.0, (*shape, self.calls)) - 2))
        slow = rng.random(found.shape) < self.outliers
        return np.where(slow, found * (1 + rng.pareto(1.5, found.shape)), found)

    def both(self, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return the latencies of two contestants whose true ratio is :data:`RATIO`."""
        machine = self._machine(rng)
        return (
            self.contestant(rng, RATIO, machine),
            self.contestant(rng, 1.0, machine if self.paired else self._machine(rng)),
        )

    def _machine(self, rng: np.random.Generator) -> Array:
        shape = (self.starts, self.rounds)
        drift = np.linspace(0.0, 0.05, self.starts * self.rounds).reshape(shape) if self.paired else 0.0
        return drift + remembering(rng, shape, 0.8, self.machine if self.paired else 0.01)


def remembering(rng: np.random.Generator, shape: tuple[int, int], memory: float, size: float) -> Array:
    """Return series whose values correlate with the ones before (AR(1)), ``shape``, with standard deviation ``size``."""
    fresh = rng.standard_normal(shape)
    for i in range(1, shape[1]):
        fresh[:, i] = memory * fresh[:, i - 1] + math.sqrt(1 - memory**2) * fresh[:, i]
    return size * fresh


RATIOS = {
    "quiet": Scenario(restart=0.003, round=0.005, call=0.01),
    "usual": Scenario(),
    "noisy rounds and calls": Scenario(restart=0.01, round=0.08, call=0.1),
    "three starts": Scenario(starts=3, rounds=8, calls=20),
    "twelve starts": Scenario(starts=12, rounds=3, calls=20),
    "thirty starts of few calls": Scenario(starts=30, rounds=2, calls=5),
    "bimodal starts": Scenario(rounds=6, bimodal=0.05, round=0.01),
    "heavy tails": Scenario(rounds=6, outliers=0.1),
    "autocorrelated rounds": Scenario(rounds=12, memory=0.8, round=0.05),
    "two runs, not side by side": Scenario(paired=False),
    "one process": Scenario(starts=1, rounds=24, calls=20, restart=0.0),
    "one process, autocorrelated": Scenario(starts=1, rounds=24, calls=20, restart=0.0, memory=0.3),
    "one process, longer memory": Scenario(starts=1, rounds=60, calls=20, restart=0.0, memory=0.5),
}
"""For the ratio of two contestants."""

QUANTILES = {
    "quiet": Scenario(rounds=6, calls=60, restart=0.001, round=0.002),
    "usual": Scenario(rounds=6, calls=60),
    "starts that differ": Scenario(rounds=6, calls=60, restart=0.05),
    "twelve starts": Scenario(starts=12, rounds=4, calls=60),
    "bimodal starts": Scenario(rounds=6, calls=60, bimodal=0.1),
    "heavy tails": Scenario(rounds=6, calls=60, outliers=0.1),
    "one process": Scenario(starts=1, rounds=30, calls=60, restart=0.0, memory=0.3),
}
"""For the quantiles of one contestant's calls, on a machine that does not vary."""


@dataclass
class Found:
    """What repeated draws of a scenario gave.

    Attributes:
        held: how often an interval held the truth, of 1.
        half_width: the intervals' mean, as a share of the figure.
        deviation: the standard deviation of the estimates, as a share of the figure.
    """

    held: float
    half_width: float
    deviation: float


Method = Callable[[Array, Array], Interval]


def as_nested(latencies: Array) -> Nested:
    """Return latencies as the benchmark keeps them."""
    return [list(rounds) for rounds in latencies]


def printed(scenario: Scenario) -> Method:
    """Return the benchmark's own method."""
    return lambda over, under: ratio(as_nested(over), as_nested(under), paired=scenario.paired)


def simulate(scenario: Scenario, method: Method, repeats: int, seed: int = 1) -> Found:
    """Draw a scenario repeatedly, and see how often the interval of the ratio holds :data:`RATIO`."""
    rng = np.random.default_rng(seed)
    return summary([method(*scenario.both(rng)) for _ in range(repeats)], RATIO)


def simulate_quantiles(scenario: Scenario, repeats: int, seed: int = 1) -> Mapping[float, Found]:
    """Draw one contestant repeatedly, and see how often the intervals of its p50, p90 and p99 hold those of all starts."""
    rng = np.random.default_rng(seed)
    still = np.zeros((scenario.starts, scenario.rounds))
    many = Scenario(**{**vars(scenario), "starts": 4000})
    every = many.contestant(np.random.default_rng(99), 1.0, np.zeros((4000, scenario.rounds)))
    draws = [as_nested(scenario.contestant(rng, 1.0, still)) for _ in range(repeats)]
    found = {}
    for share in (0.5, 0.9, 0.99):
        intervals = [interval for one in draws if (interval := nested_quantile(one, share)) is not None]
        found[share] = summary(intervals, float(np.quantile(every, share)))
    return found


def summary(intervals: list[Interval], truth: float) -> Found:
    """Return how often intervals held the truth."""
    return Found(
        float(np.mean([one.contains(truth) for one in intervals])),
        float(np.mean([math.log(one.high / one.low) / 2 for one in intervals])),
        float(np.std([math.log(one.value) for one in intervals])),
    )


def resampling(over: Array, under: Array, *, levels: int) -> Interval:
    """Return a percentile interval, widened for few starts, of a bootstrap of starts (1 level), or of rounds and calls too (3)."""
    rng = np.random.default_rng(0)
    starts, rounds, calls = over.shape
    drawn = []
    for _ in range(RESAMPLES):
        chosen = rng.integers(0, starts, starts) if starts > 1 else np.zeros(1, np.int64)
        sides = [over[chosen], under[chosen]]
        if levels == 3:
            which = rng.integers(0, rounds, (starts, rounds))
            sides = [side[np.arange(starts)[:, None], which] for side in sides]
            sides = [np.take_along_axis(side, rng.integers(0, calls, side.shape), 2) for side in sides]
        medians = [float(np.median(side, axis=2).mean()) for side in sides]
        drawn.append(math.log(medians[0] / medians[1]))
    value = location(as_nested(over)) / location(as_nested(under))
    n = starts if starts > 1 else rounds
    widened = math.sqrt(n / (n - 1)) * student_t(n - 1) / 1.96
    low, high = widened * (np.quantile(drawn, (0.025, 0.975)) - math.log(value))
    return Interval(value, value * math.exp(low), value * math.exp(high))


def rounds_t(over: Array, under: Array) -> Interval:
    """Return Student's t interval over all rounds, as if they were independent."""
    logs = np.log(np.median(over, axis=2) / np.median(under, axis=2)).ravel()
    half = student_t(len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    value = math.exp(float(logs.mean()))
    return Interval(value, value * math.exp(-half), value * math.exp(half))


def others(scenario: Scenario) -> Mapping[str, Method]:
    """Return the other methods that fit a scenario."""
    if not scenario.paired:
        return {}
    every: dict[str, Method] = {"all levels": lambda over, under: resampling(over, under, levels=3)}
    if scenario.starts > 1:
        return every | {"starts": lambda over, under: resampling(over, under, levels=1)}
    return every | {"rounds, t": rounds_t}


def ratios(repeats: int) -> str:
    """Return the table of the ratio."""
    rows = []
    for name, scenario in RATIOS.items():
        own = simulate(scenario, printed(scenario), repeats)
        row = [name, f"{scenario.starts} x {scenario.rounds} x {scenario.calls}", *_cells(own), f"{own.deviation:.2%}"]
        methods = others(scenario)
        fewer = max(repeats // 8, 20)  # they are slow
        for word in ("all levels", "starts", "rounds, t"):
            row += _cells(simulate(scenario, methods[word], fewer)) if word in methods else ["", ""]
        rows.append(row)
    head = ["ratio", "starts x rounds x calls", "holds", "half width", "deviation"]
    head += [text for word in ("all levels", "starts", "rounds, t") for text in (word, "half width")]
    return table(head, rows)


def quantiles(repeats: int) -> str:
    """Return the table of the quantiles."""
    rows = []
    for name, scenario in QUANTILES.items():
        found = simulate_quantiles(scenario, repeats)
        size = f"{scenario.starts} x {scenario.rounds} x {scenario.calls}"
        rows.append([name, size, *(cell for share in found for cell in _cells(found[share]))])
    head = ["quantiles", "starts x rounds x calls"]
    head += [text for word in ("p50", "p90", "p99") for text in (f"{word} holds", "half width")]
    return table(head, rows)


def _cells(found: Found) -> list[str]:
    return [f"{found.held:.1%}", f"{found.half_width:.2%}"]


def main() -> int:
    """Print both tables."""
    made = argparse.ArgumentParser(description="how often the benchmark's intervals hold a known truth")
    made.add_argument("--repeats", type=int, default=2000, help="of each scenario (default: 2000)")
    repeats = made.parse_args().repeats
    print(ratios(repeats))
    print()
    print(quantiles(repeats))
    return 0


if __name__ == "__main__":
    sys.exit(main())
