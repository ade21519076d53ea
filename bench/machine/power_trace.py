"""Readings of a meter over time, so that the energy of any span between them can be computed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import numpy as np

from .power_meters import Meter

INTERVAL_S = 0.02
"""Time between readings. Meters have update intervals of their own: RAPL 1 ms, NVML about 20 to 100 ms."""


class Trace:
    """Energy over time; between readings it is interpolated.

    Args:
        counts: whether readings are joules; watts are integrated by the trapezoidal rule.
    """

    def __init__(self, *, counts: bool) -> None:
        self._counts = counts
        self._times: list[float] = []
        self._joules: list[float] = []
        self._last = 0.0

    def add(self, seconds: float, value: float) -> None:
        """Add a reading; ``seconds`` increase from one to the next."""
        if self._counts:
            self._joules.append(value)
        elif not self._times:
            self._joules.append(0.0)
        else:
            self._joules.append(self._joules[-1] + (value + self._last) / 2 * (seconds - self._times[-1]))
        self._last = value
        self._times.append(seconds)

    def joules(self, begin: float, end: float) -> float | None:
        """Return the energy between two moments on the readings' clock; None where the readings do not cover them."""
        if len(self._times) < 2 or begin < self._times[0] or end > self._times[-1]:
            return None
        at_begin, at_end = np.interp([begin, end], self._times, self._joules)
        return float(at_end - at_begin)


class Recorder:
    """Reads a meter in a thread of this process while contestants work in others; a context manager.

    Args:
        meter: what is read.
        clock: returns seconds; ``time.monotonic``, a clock that processes share.
    """

    def __init__(self, meter: Meter, clock: Callable[[], float] = time.monotonic) -> None:
        self.meter = meter
        self._clock = clock
        self._trace = Trace(counts=meter.counts)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mtl-bench-power", daemon=True)

    def __enter__(self) -> Recorder:
        """Take a reading and start the thread."""
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def joules(self, begin: float, end: float) -> float | None:
        """Return the energy of a span that is over; None where the meter failed."""
        self._read()
        with self._lock:
            return self._trace.joules(begin, end)

    def _work(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._read()

    def _read(self) -> None:
        with self._lock:
            value = self.meter.read()
            if value is not None:
                self._trace.add(self._clock(), value)
