"""Latency under load: requests that arrive by themselves at a rate, and the highest rate that keeps a deadline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mtl_deploy.bench.blocks.kinds import printed
from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.statistics.nested import Interval

from .rate import Rate, summarise
from .rates import require_deadline
from .search import Highest, Search
from .serving import poisson_arrivals, serve, warm_calls

SWEEP = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # of the calls per second of a closed loop
_ENOUGH_CALLS = 500  # for a p99 at a rate when there is a deadline
_LONGEST = 8  # times the seconds asked for, to reach them
_MOST_CALLS = 1_000_000
_LATE = 0.1  # of the median latency, from which the load generator itself is in the figures


@dataclass
class OpenLoop:
    """Latency under load of several contestants.

    Attributes:
        deadline_ms: for the p99; None where there is none.
        rates: by contestant, by growing rate.
        highest: by contestant, the highest rate that keeps the deadline; empty without one, and where the search was interrupted.
        titles: of the contestants, for people.
        interrupted: whether it ended before its time; it then holds what was measured.
        warnings: what casts doubt on the figures.
    """

    deadline_ms: float | None
    rates: dict[str, list[Rate]]
    highest: dict[str, Highest]
    titles: Mapping[str, str]
    interrupted: bool = False
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON."""
        return {
            "process": "poisson",
            "deadline_ms": self.deadline_ms,
            "contestants": {
                name: {
                    "rates": [rate.to_dict() for rate in rates],
                    "highest_rate_per_s": self.highest.get(name, _NOT_SEARCHED).rate_per_s,
                    "missed_from_per_s": self.highest.get(name, _NOT_SEARCHED).beyond_per_s,
                }
                for name, rates in self.rates.items()
            },
        }


def measure_open_loop(
    hosts: Mapping[str, Host],
    batch: Batch,
    *,
    rates: Sequence[float] | None,
    deadline_ms: float | None,
    seconds: float,
    seed: int,
    closed_loop_per_s: Mapping[str, float],
    progress: Callable[[str], None] = lambda _: None,
) -> OpenLoop:
    """Offer each contestant requests at several rates, in turn, and search the highest rate that keeps the deadline.

    Each run starts with requests that do not count, until the queue is in its stationary state. The search's answer is a rate that
    was measured several times, and at which the upper end of the p99's interval keeps the deadline
    (:class:`~mtl_deploy.bench.sections.load.search.Search`).

    Args:
        hosts: of the contestants, by name.
        batch: what each request asks for.
        rates: requests per second; None: a sweep, in shares of each contestant's own closed loop.
        deadline_ms: for the p99, queueing included; None: no search.
        seconds: per run; with a deadline up to eight times as long, where 500 requests take that.
        seed: of the arrivals: contestants at one rate get the same ones.
        closed_loop_per_s: calls per second of each contestant in a closed loop.
        progress: shows what is being measured.

    Returns:
        What was measured; after Ctrl-C, what there is so far.

    Raises:
        OptionError: a deadline that is not a time.
        WorkError: a contestant failed.
        KeyboardInterrupt: nothing was measured yet.
    """
    require_deadline(deadline_ms)
    found = OpenLoop(deadline_ms, {name: [] for name in hosts}, {}, {n: host.spec.title for n, host in hosts.items()})
    plans = [{n: share * closed_loop_per_s[n] for n in hosts} for share in SWEEP]
    if rates is not None:
        plans = [dict.fromkeys(hosts, rate) for rate in rates]

    def offer(name: str, rate_per_s: float) -> Rate:
        measured = {rate.rate_per_s: rate for rate in found.rates[name]}
        before = measured[rate_per_s].runs if rate_per_s in measured else ()
        progress(f"Open loop: {found.titles[name]} at {rate_per_s:.1f} requests per second, run {len(before) + 1}")
        capacity = closed_loop_per_s[name]
        calls = _calls(rate_per_s, seconds, deadline_ms)
        warm = warm_calls(rate_per_s, capacity, calls)
        hopeless_s = max(1.0, 0.5 * calls / rate_per_s, 20 / capacity, (deadline_ms or 0) / 50)
        arrivals = poisson_arrivals(rate_per_s, warm + calls, seed, len(before))
        rate = summarise(rate_per_s, [*before, hosts[name].run(serve, batch, arrivals, hopeless_s, warm)], deadline_ms)
        measured[rate_per_s] = rate
        found.rates[name] = [measured[one] for one in sorted(measured)]
        return rate

    def search(name: str, deadline_ms: float) -> Highest:
        rates = _ByRate(found.rates, name)
        return Search(rates, lambda rate: offer(name, rate), closed_loop_per_s[name], deadline_ms).run()

    try:
        for plan in plans:
            for name, rate_per_s in plan.items():
                offer(name, rate_per_s)
        if deadline_ms is not None:
            for name in hosts:
                found.highest[name] = search(name, deadline_ms)
    except KeyboardInterrupt:
        if not any(found.rates.values()):
            raise
        found.interrupted = True
        found.warnings.append("the open loop was interrupted before its time")
    found.warnings += _doubts(found)
    return found


def _calls(rate_per_s: float, seconds: float, deadline_ms: float | None) -> int:
    calls = rate_per_s * seconds
    if deadline_ms is not None:
        calls = max(calls, min(_ENOUGH_CALLS, _LONGEST * calls))
    return int(min(max(round(calls), 2), _MOST_CALLS))


class _ByRate(Mapping[float, Rate]):
    """The rates of a contestant as they are measured."""

    def __init__(self, rates: Mapping[str, Sequence[Rate]], name: str) -> None:
        self._rates, self._name = rates, name

    def __getitem__(self, rate_per_s: float) -> Rate:
        return {rate.rate_per_s: rate for rate in self._rates[self._name]}[rate_per_s]

    def __iter__(self) -> Iterator[float]:
        return iter([rate.rate_per_s for rate in self._rates[self._name]])

    def __len__(self) -> int:
        return len(self._rates[self._name])


def _doubts(found: OpenLoop) -> list[str]:
    """Return what casts doubt on the figures."""
    doubts = []
    for name, rates in found.rates.items():
        title = found.titles[name]
        if any(rate.sustained and rate.late_ms > _LATE * (rate.latency_ms["p50"] or _NONE).value for rate in rates):
            late = max(rate.late_ms for rate in rates)
            doubts.append(
                f"requests to {title} were sent up to {printed(late, 'ms')} ms late, which is in their latencies"
            )
        highest = found.highest.get(name)
        if highest is None:
            continue
        if highest.rate_per_s is None and any(rate.sustained and rate.meets_deadline is None for rate in rates):
            doubts.append(
                f"no rate was found at which {title} surely keeps the deadline, and some are open: measure for longer with "
                "--duration"
            )
        missed = [rate.rate_per_s for rate in rates if rate.meets_deadline is False]
        if any(rate.meets_deadline and rate.rate_per_s > min(missed, default=math.inf) for rate in rates):
            doubts.append(
                f"{title} missed the deadline at {min(missed):.1f} requests per second and kept it at a higher rate: the machine "
                "changed meanwhile"
            )
    return doubts


_NONE = Interval(math.inf, math.inf, math.inf)
_NOT_SEARCHED = Highest(None, None)
