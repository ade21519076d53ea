"""One server under an open load: requests arrive when they arrive, whether or not the ones before are done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtl_deploy.bench.contestants.contestant import Contestant
from mtl_deploy.bench.contestants.pair import Batch
from mtl_deploy.bench.measurement.measure import undisturbed
from mtl_deploy.bench.statistics.nested import Interval, Samples, quantile
from mtl_deploy.bench.statistics.student import student_t

SPIN_S = 0.001
"""How long before an arrival the wait turns from sleeping to spinning: a sleep ends late by the timer's slack and the wake-up."""
_WARM_CALLS = 3  # other contestants ran meanwhile
_BLOCKS = 16
_RELAXATIONS = 3


@dataclass(frozen=True)
class Served:
    """What a server did with a schedule.

    Attributes:
        latencies_ms: from each request's scheduled arrival to its completion, ``(calls,)`` in order of arrival.
        late_ms: by how much calls began late that found the server idle: the load generator's own error, ``(calls that waited,)``.
        seconds: from the schedule's start to the last completion.
        waited_s: of these, seconds without a request.
        finished: False where the backlog was hopeless and the rest of the schedule was given up.
        warm_calls: the first requests, which only bring the queue to its stationary state: it starts empty.
    """

    latencies_ms: Samples
    late_ms: Samples
    seconds: float
    waited_s: float
    finished: bool
    warm_calls: int = 0

    @property
    def measured_ms(self) -> Samples:
        """The latencies that count; of a run that was given up early, those of its second half."""
        warm = self.warm_calls if self.finished else min(self.warm_calls, len(self.latencies_ms) // 2)
        return self.latencies_ms[warm:]

    @property
    def utilisation(self) -> float:
        """Share of the time in which there was a request to serve."""
        return 1 - self.waited_s / self.seconds


def warm_calls(rate_per_s: float, capacity_per_s: float, calls: int) -> int:
    """Return how many requests bring an empty queue to its stationary state: those of three relaxation times.

    In one relaxation time the distance of the mean queue from its stationary state falls to a third or so. For exponential service
    times at a utilisation u it is 1 / (1 - sqrt(u))^2 services (Abate, Whitt: Transient Behavior of the M/M/1 Queue: Starting at
    the Origin, Queueing Systems 2, 1987); service times that vary less relax sooner.

    Args:
        rate_per_s: requests per second.
        capacity_per_s: that are served at most.
        calls: that are to be measured; the answer is a tenth of them at least, and at most twice as many: near saturation no run
            is long enough.
    """
    utilisation = min(rate_per_s / capacity_per_s, 0.99)
    relaxation = utilisation / (1 - math.sqrt(utilisation)) ** 2  # in requests
    return round(min(max(_RELAXATIONS * relaxation, calls / 10), 2 * calls))


def poisson_arrivals(rate_per_s: float, calls: int, seed: int, run: int = 0) -> Samples:
    """Return arrivals of a Poisson process in seconds, ``(calls,)``, rising.

    Given their number, the arrivals of a Poisson process are independent and uniform over the time (Ross: Stochastic Processes,
    section 2.3). So drawn, the rate that is offered is exactly the one that was asked for, and contestants that get the same seed
    and number get the same load.

    Args:
        rate_per_s: requests per second.
        calls: number of requests.
        seed: of the process.
        run: another number gives other arrivals.
    """
    arrivals: Samples = np.sort(np.random.default_rng([seed, run, calls]).random(calls)) * (calls / rate_per_s)
    return arrivals


def serve(
    contestant: Contestant,
    batch: Batch,
    arrivals_s: Samples,
    hopeless_s: float = float("inf"),
    warm: int = 0,
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Served:
    """Serve requests one at a time, first come first served, and count each latency from its scheduled arrival.

    A request that arrives while another is served waits, and its waiting is in its latency. A closed loop would only send it
    afterwards and so leave out the very requests that a stall hits (coordinated omission).

    Args:
        contestant: the server.
        batch: what each request asks for.
        arrivals_s: after the start, rising, ``(calls,)``.
        hopeless_s: give up once a request waits this long.
        warm: the first requests, whose latencies do not count.
        clock: nanoseconds.
        sleep: waits for seconds; may be late.
    """
    for _ in range(_WARM_CALLS):
        contestant(batch)
    latencies, late, waited = [], [], 0
    finished = True
    with undisturbed():
        start = now = clock()
        for arrival in (start + np.asarray(arrivals_s * 1e9, dtype=np.int64)).tolist():
            if now < arrival:
                idle_since = now
                if (seconds := (arrival - now) / 1e9 - SPIN_S) > 0:
                    sleep(seconds)
                while (now := clock()) < arrival:
                    pass
                waited += arrival - idle_since
                late.append(now - arrival)
            elif now - arrival > hopeless_s * 1e9:
                finished = False
                break
            contestant(batch)
            now = clock()
            latencies.append(now - arrival)
    return Served(
        latencies_ms=np.array(latencies, dtype=np.float64) / 1e6,
        late_ms=np.array(late, dtype=np.float64) / 1e6,
        seconds=max(now - start, 1) / 1e9,
        waited_s=waited / 1e9,
        finished=finished,
        warm_calls=warm,
    )


def dependent_quantile(runs: Sequence[Samples], share: float) -> Interval | None:
    """Estimate a quantile of correlated values, such as the latencies of a queue; None where they are too few.

    Requests of one busy period wait for each other, so a thousand latencies bound a p99 no better than far fewer independent
    ones. How many fewer: the variance of the share of values below the quantile, by batch means over 16 blocks or more in order of
    time, over the variance that independent values would have (batch means: Law: Simulation Modeling and Analysis, section 9.5.3;
    that dependence asks for more samples of a quantile: Heidelberger, Lewis: Quantile Estimation in Dependent Sequences, Operations
    Research 32, 1984). With so many values, order statistics give the interval as for independent ones, and Student's distribution
    widens it for the few blocks, as Korn and Graubard do for rare events (Confidence Intervals for Proportions with Small Expected
    Number of Positive Counts Estimated from Survey Data, Survey Methodology 24, 1998). Blocks must be longer than the queue's
    memory; near saturation, where it is long, the interval is too narrow.

    Args:
        runs: the values of each run, ``(n,)``, in order of time.
        share: between 0 and 1; 0.99 for p99.
    """
    n = sum(map(len, runs))
    if n < _BLOCKS:
        return None
    ordered = np.sort(np.concatenate(list(runs)))
    value = float(np.quantile(ordered, share))
    blocks = [block for run in runs for block in np.array_split(run, math.ceil(_BLOCKS / len(runs))) if len(block)]
    shares = np.array(
        [[np.mean(block < value), np.mean(block <= value)] for block in blocks]
    )  # both: values may be equal
    variance = float(shares.var(axis=0, ddof=1).max())
    inflation = (student_t(len(blocks) - 1) / student_t(math.inf)) ** 2
    dependence = inflation * variance * (n / len(blocks)) / (share * (1 - share))
    effective = max(int(n / max(dependence, 1.0)), 1)
    ranks = quantile(np.arange(effective, dtype=np.float64), share)  # which of so many values bound it
    if ranks is None:
        return None
    low, high = int(ranks.low * n / effective), int(np.ceil((ranks.high + 1) * n / effective)) - 1
    return Interval(value, float(ordered[low]), float(ordered[min(high, n - 1)]))
