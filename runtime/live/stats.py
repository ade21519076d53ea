"""How a stream does, said every few seconds: frame rate, latency and what was dropped, for each source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mtl_deploy.runtime.streams.result import StreamResult


@dataclass
class _Interval:
    latencies: list[float] = field(default_factory=list)
    failed: int = 0


class Stats:
    """Counts what comes out of a stream. Safe to use from several threads.

    Args:
        sources: labels of the sources, in order.
        clock: seconds.
    """

    def __init__(self, sources: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = list(sources)
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._intervals = {source: _Interval() for source in sources}
        self._dropped: dict[Hashable, int] = {}

    def add(self, result: StreamResult) -> None:
        """Count a result."""
        with self._lock:
            interval = self._intervals[str(result.source)]
            if result.error is not None:
                interval.failed += 1
            else:
                interval.latencies.append(result.latency)

    def lines(self, dropped: Mapping[Hashable, int], reconnects: Mapping[str, int]) -> list[str]:
        """Return a line for each source about the time since the last call.

        Args:
            dropped: frames by source since the beginning.
            reconnects: by source since the beginning.
        """
        with self._lock:
            now = self._clock()
            seconds, self._since = max(now - self._since, 1e-9), now
            intervals, self._intervals = self._intervals, {source: _Interval() for source in self._sources}
            before, self._dropped = self._dropped, dict(dropped)
        lines = []
        for source in self._sources:
            of = intervals[source]
            words = [f"{len(of.latencies) / seconds:.1f} frames per second"]
            if of.latencies:
                middle, high, highest = 1000 * np.percentile(of.latencies, [50, 95, 99])
                words.append(f"latency {middle:.1f} ms (median), 95 % below {high:.1f}, 99 % below {highest:.1f}")
            words.append(f"{dropped.get(source, 0) - before.get(source, 0)} dropped")
            words += [f"{of.failed} failed"] if of.failed else []
            count = reconnects.get(source, 0)
            words += [f"{count} reconnect{'s' if count > 1 else ''} so far"] if count else []
            lines.append(f"{source}: {', '.join(words)}")
        return lines
