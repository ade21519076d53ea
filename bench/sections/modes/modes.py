"""Images per second where several threads call at once, in both modes of a graph on a processor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mtl_deploy.bench.contestants.contestant import Contestant
from mtl_deploy.bench.contestants.forms import start
from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.bench.statistics.derived import ratio
from mtl_deploy.bench.statistics.nested import Interval, Nested
from mtl_deploy.runtime.backends.modes import MODES

ROUNDS = 5
SECONDS = 1.0  # of a round
_WARM_UP = 3  # calls of each thread


@dataclass(frozen=True)
class ModeRounds:
    """One mode of a contestant.

    Attributes:
        details: what ran it.
        rates: images per second of each round, all callers together.
        latencies_ms: of all calls.
    """

    details: str
    rates: tuple[float, ...]
    latencies_ms: tuple[float, ...]

    @property
    def ms_per_image(self) -> Nested:
        """Each round's milliseconds per image, as samples of one process."""
        return [[np.array([1000 / rate]) for rate in self.rates]]

    @property
    def images_per_s(self) -> Interval:
        """The mean over rounds, with its interval."""
        one = [[np.array([1.0]) for _ in self.rates]]
        inverse = ratio(one, self.ms_per_image)
        return Interval(*(1000 * value for value in (inverse.value, inverse.low, inverse.high)))


@dataclass(frozen=True)
class Modes:
    """Both modes of the contestants.

    Attributes:
        callers: threads that call at once.
        seconds: of each round.
        found: by contestant and mode.
    """

    callers: int
    seconds: float
    found: Mapping[str, Mapping[str, ModeRounds]]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What casts doubt on the figures."""
        if self.callers == 1:
            return ("there is one core to run on, so that several calls at once gain nothing",)
        return ()

    def gain(self, name: str) -> Interval:
        """Return a contestant's images per second in mode throughput over those in mode latency, by rounds in turn."""
        modes = self.found[name]
        return ratio(modes["latency"].ms_per_image, modes["throughput"].ms_per_image)

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON document."""
        return {
            "callers": self.callers,
            "seconds": self.seconds,
            "contestants": {
                name: {
                    "modes": {
                        mode: {
                            "details": one.details,
                            "images_per_s": asdict(one.images_per_s),
                            "p50_ms": float(np.median(one.latencies_ms)),
                        }
                        for mode, one in modes.items()
                    },
                    "gain": asdict(self.gain(name)),
                }
                for name, modes in self.found.items()
            },
        }


def measure_modes(
    hosts: Mapping[str, Host],
    batch: Batch,
    callers: int,
    *,
    rounds: int = ROUNDS,
    seconds: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Modes:
    """Measure contestants in both modes, each in its own process, in rounds in turn.

    Args:
        hosts: of graphs on processors, by name.
        batch: what each call gets.
        callers: threads that call at once.
        rounds: of each mode.
        seconds: of each round; None: :data:`SECONDS`.
        progress: shows what is being measured.

    Raises:
        OptionError: a contestant does not run on a processor.
        WorkError: a contestant failed.
    """
    found = {}
    seconds = SECONDS if seconds is None else seconds
    for name, host in hosts.items():
        progress(f"Measuring both modes of {host.spec.title}")
        found[name] = host.run(call_in_both, host.spec, batch, callers, rounds, seconds)
    return Modes(callers, seconds, found)


def call_in_both(
    contestant: Contestant,  # noqa: ARG001 - those that are called are started for this
    spec: Spec,
    batch: Batch,
    callers: int,
    rounds: int,
    seconds: float,
) -> dict[str, ModeRounds]:
    """Start a contestant in both modes, and call each from several threads, round by round in turn; for ``Host.run``."""
    with ExitStack() as stack:
        started = {
            mode: stack.enter_context(closing(start(replace(spec, settings=replace(spec.settings, mode=mode)))))
            for mode in MODES
        }
        for one in started.values():
            _call(one, batch, callers, _WARM_UP, 0.0)
        rates: dict[str, list[float]] = {mode: [] for mode in MODES}
        latencies: dict[str, list[float]] = {mode: [] for mode in MODES}
        for _ in range(rounds):
            for mode, one in started.items():
                begun = time.perf_counter()
                found = _call(one, batch, callers, 1, seconds)
                rates[mode].append(len(found) * len(batch) / (time.perf_counter() - begun))
                latencies[mode] += found
        return {
            mode: ModeRounds(one.details, tuple(rates[mode]), tuple(latencies[mode])) for mode, one in started.items()
        }


def _call(contestant: Contestant, batch: Batch, callers: int, least: int, seconds: float) -> list[float]:
    """Call from several threads, each so many times at least, and for so long; return each call's milliseconds."""
    found: list[float] = []
    errors: list[BaseException] = []
    end = time.perf_counter() + seconds

    def work() -> None:
        calls = 0
        try:
            while calls < least or time.perf_counter() < end:
                begun = time.perf_counter()
                contestant(batch)
                found.append(1000 * (time.perf_counter() - begun))
                calls += 1
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)

    threads = [threading.Thread(target=work, name=f"mtl-bench-caller-{number}") for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
