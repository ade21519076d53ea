"""Latency under load: requests that arrive by themselves at a rate, and the highest rate that keeps a deadline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.bench.blocks.kinds import printed
from mtl_deploy.bench.contestants.hosts import Host
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.statistics.nested import QUANTILES, Interval

from .rates import require_deadline
from .serving import Served, dependent_quantile, poisson_arrivals, serve

SWEEP = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)  # of the calls per second of a closed loop
SATURATED = 0.98  # utilisation from which a rate is not sustained
CLOSE = 1.03  # met and missed rates that are this close end a search
_STEPS = 12  # of a search at most
_ENOUGH_CALLS = 500  # for a p99 at a rate when there is a deadline
_LONGEST = 8  # times the seconds asked for, to reach them
_MOST_CALLS = 1_000_000
_LATE = 0.1  # of the median latency, from which the load generator itself is in the figures


@dataclass(frozen=True)
class Rate:
    """What a contestant did at one rate.

    Attributes:
        rate_per_s: requests per second that were offered.
        calls: requests that were served.
        duration_s: from the start to the last completion.
        latency_ms: by quantile, from the scheduled arrival; None where the requests are too few to bound it.
        p99_ms: the estimate alone, however few the requests.
        utilisation: share of the time with a request to serve.
        sustained: False where requests arrive faster than they are served.
        meets_deadline: whether the p99 is in the deadline; None without one, or with too few requests for a p99.
        late_ms: 99th percentile of what the load generator itself was late by.
    """

    rate_per_s: float
    calls: int
    duration_s: float
    latency_ms: Mapping[str, Interval | None]
    p99_ms: float
    utilisation: float
    sustained: bool
    meets_deadline: bool | None
    late_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Return its place in the JSON."""
        found = asdict(self)
        del found["p99_ms"], found["late_ms"]
        return found


@dataclass
class OpenLoop:
    """Latency under load of several contestants.

    Attributes:
        deadline_ms: for the p99; None where there is none.
        rates: by contestant, by growing rate.
        highest_per_s: by contestant, the highest measured rate that keeps the deadline; None where none did, or without one.
        titles: of the contestants, for people.
        interrupted: whether it ended before its time; it then holds what was measured.
        warnings: what casts doubt on the figures.
    """

    deadline_ms: float | None
    rates: dict[str, list[Rate]]
    highest_per_s: dict[str, float | None]
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
                    "highest_rate_per_s": self.highest_per_s.get(name),
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

    The search halves the interval between a rate that met the deadline and a higher one that missed it, until they are 3 % apart.
    Its answer is a rate that was measured and met.

    Args:
        hosts: of the contestants, by name.
        batch: what each request asks for.
        rates: requests per second; None: a sweep, in shares of each contestant's own closed loop.
        deadline_ms: for the p99, queueing included; None: no search.
        seconds: per rate and contestant; with a deadline up to eight times as long, where 500 requests take that.
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
        progress(f"Open loop: {found.titles[name]} at {rate_per_s:.1f} requests per second")
        calls = _calls(rate_per_s, seconds, deadline_ms)
        hopeless_s = max(1.0, 0.5 * calls / rate_per_s, 20 / closed_loop_per_s[name], (deadline_ms or 0) / 50)
        served = hosts[name].run(serve, batch, poisson_arrivals(rate_per_s, calls, seed), hopeless_s)
        rate = summarise(rate_per_s, served, deadline_ms)
        found.rates[name] = sorted([*found.rates[name], rate], key=lambda one: one.rate_per_s)
        return rate

    try:
        for plan in plans:
            for name, rate_per_s in plan.items():
                offer(name, rate_per_s)
        for name in hosts if deadline_ms is not None else ():
            found.highest_per_s[name] = _search(name, found, offer, closed_loop_per_s[name])
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


def summarise(rate_per_s: float, served: Served, deadline_ms: float | None) -> Rate:
    """Return the figures of one schedule.

    The first tenth of the requests is left out: the queue starts empty.

    Args:
        rate_per_s: requests per second that were offered.
        served: what became of them.
        deadline_ms: for the p99; None where there is none.
    """
    latencies = served.latencies_ms[len(served.latencies_ms) // 10 :]
    p99_ms = float(np.quantile(latencies, QUANTILES["p99"]))
    sustained = served.finished and served.utilisation < SATURATED
    meets: bool | None = None
    if deadline_ms is not None:
        if not sustained:
            meets = False
        elif len(latencies) >= 100:  # the estimate stands on one value at least
            meets = p99_ms <= deadline_ms
        elif len(latencies) >= 10 and np.quantile(latencies, QUANTILES["p90"]) > deadline_ms:  # then the p99 is, too
            meets = False
    return Rate(
        rate_per_s=rate_per_s,
        calls=len(served.latencies_ms),
        duration_s=served.seconds,
        latency_ms={word: dependent_quantile(latencies, share) for word, share in QUANTILES.items()},
        p99_ms=p99_ms,
        utilisation=served.utilisation,
        sustained=sustained,
        meets_deadline=meets,
        late_ms=float(np.quantile(served.late_ms, QUANTILES["p99"])) if len(served.late_ms) else 0.0,
    )


def _search(name: str, found: OpenLoop, offer: Callable[[str, float], Rate], capacity: float) -> float | None:
    """Return the highest rate found that meets the deadline, offering more rates to a contestant.

    Args:
        name: of the contestant.
        found: has the rates so far, and gets those that are offered.
        offer: measures one more.
        capacity: calls per second in a closed loop, which no rate can exceed for long.
    """
    for _ in range(_STEPS):
        met, missed = _bracket(found.rates[name])
        if met is None and missed is None:  # too few requests for a p99
            return None
        if met is None and missed is not None:
            if missed < 0.01 * capacity:  # even without a queue it is too slow
                return None
            following = missed / 2
        elif missed is None and met is not None:
            if met >= capacity:
                return met
            following = min(max(math.sqrt(met * capacity), CLOSE * met), capacity)
        elif missed is not None and met is not None:
            if missed <= CLOSE * met:
                return met
            following = math.sqrt(met * missed)
        if offer(name, following).meets_deadline is None:
            break
    return _bracket(found.rates[name])[0]


def _bracket(rates: Sequence[Rate]) -> tuple[float | None, float | None]:
    """Return the highest rate that meets the deadline below any that misses it, and the lowest that misses it."""
    missed = min((rate.rate_per_s for rate in rates if rate.meets_deadline is False), default=None)
    met = [rate.rate_per_s for rate in rates if rate.meets_deadline and (missed is None or rate.rate_per_s < missed)]
    return max(met, default=None), missed


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
        if found.deadline_ms is None:
            continue
        if any(rate.meets_deadline is None for rate in rates):
            doubts.append(f"{title} had too few requests at some rates for a p99: measure for longer with --duration")
        highest = next((one for one in rates if one.rate_per_s == found.highest_per_s.get(name)), None)
        if highest is not None:
            bounds = highest.latency_ms["p99"]
            if bounds is None or bounds.high > found.deadline_ms:
                doubts.append(
                    f"the highest rate of {title} is uncertain: its p99 interval "
                    + ("cannot be given from so few requests" if bounds is None else "contains the deadline")
                    + "; measure for longer with --duration"
                )
    return doubts


_NONE = Interval(math.inf, math.inf, math.inf)
