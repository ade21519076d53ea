"""One source read in a thread of its own: opened, read until it is lost, and opened again after a while."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import ImageError, MtlError, RunError

from .sources import Source

_LOGGER = logging.getLogger("mtl_deploy.live")
_FIRST = 0.5  # seconds until the first new attempt


class Opened(Protocol):
    """An open source: its frames, their layout and rate, and whether it ends by itself."""

    layout: str
    rate: float
    finite: bool

    def __iter__(self) -> Iterator[Any]:
        """Yield frames."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class Backoff:
    """Seconds to wait between attempts: twice as long each time, up to a most, and each between half and the whole of it.

    The random part keeps cameras that were lost together from coming back together ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015: equal jitter).

    Args:
        most: seconds.
        random: returns numbers from 0 to 1.
    """

    def __init__(self, most: float, random: Callable[[], float] = random.random) -> None:
        self._most, self._random = most, random
        self._next = min(_FIRST, most)

    def wait(self) -> float:
        """Return how long to wait now."""
        seconds, self._next = self._next, min(2 * self._next, self._most)
        return seconds * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._next = min(_FIRST, self._most)


class Feed(threading.Thread):
    """Reads a source until :meth:`stop`, or until it ends.

    Args:
        source: to read.
        open_source: opens it, or raises an :class:`~mtl_deploy.runtime.errors.ImageError`.
        submit: takes each frame.
        ended: called once, at the end, with this feed.
        reconnect: the most seconds between attempts to open a live source that was lost; None: it ends then.
        patient: try again even where the very first attempt fails, as a service does whose camera is switched on later.
        tell: called with a sentence for people, when the source is lost and when it is back.

    Attributes:
        source: as given.
        error: why it ended too early; None: it did not.
        rate: frames per second by the source's own word; 0.0 where it has none.
        reconnects: how often it was opened again.
        frames: that were read.
        done: whether it has ended; set by whoever is told.
        beat: seconds of :func:`time.monotonic` of the last sign of life; None: it waits for what may never come, and that is fine.
    """

    def __init__(
        self,
        source: Source,
        open_source: Callable[[], Opened],
        submit: Callable[[Source, Any, Opened], object],
        ended: Callable[[Feed], object],
        *,
        reconnect: float | None = None,
        patient: bool = False,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__(name=f"mtl-feed-{source.label}", daemon=True)
        self.source = source
        self._open_source, self._submit, self._ended = open_source, submit, ended
        self._backoff = None if reconnect is None or not source.live else Backoff(reconnect)
        self._patient, self._tell = patient, tell
        self._stopping = threading.Event()
        self.error: BaseException | None = None
        self.rate = 0.0
        self.reconnects = 0
        self.frames = 0
        self.done = False
        self.beat: float | None = None

    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """End with the next frame, or at once where it waits for an attempt."""
        self._stopping.set()

    def run(self) -> None:
        """Read to the end; the thread's own work."""
        try:
            self._read_on()
        except BaseException as error:  # noqa: BLE001 - whoever started it raises it
            self.error = error
        finally:
            self._ended(self)

    def _read_on(self) -> None:
        attempts = 0  # that failed, one after the other
        while not self.stopping():
            self.beat = time.monotonic()
            try:
                opened = self._open_source()
            except ImageError as error:
                if self._backoff is None or not (self.frames or self._patient):
                    raise
                attempts += 1
                self._wait(str(error), attempts)
                continue
            self.rate = opened.rate
            before = self.frames
            try:
                if self._read(opened, attempts):
                    self._check_any()
                    return
            finally:
                opened.close()
            if self.frames > before:
                attempts = 0
            if self.stopping():
                return
            lost = f"{self.source.label}: lost after {counted(self.frames, 'frame')}"
            if self._backoff is None:
                self._check_any()
                raise RunError(f"{lost}; --reconnect SECONDS opens it again")
            if not self._patient:
                self._check_any()
            attempts += 1
            self._wait(lost if self.frames > before else f"{self.source.label}: it opens, but sends no frame", attempts)

    def _read(self, opened: Opened, attempts: int) -> bool:
        """Read an open source; returns whether it has ended by itself."""
        first = True
        for frame in opened:
            if self.stopping():
                return False
            self.beat = None if self.source.kind == "pipe" else time.monotonic()
            self.frames += 1
            if first and self._backoff is not None:
                first = False
                self._backoff.reset()
                if attempts:
                    self.reconnects += 1
                    self._say(logging.INFO, f"{self.source.label}: frames come again")
            try:
                self._submit(self.source, frame, opened)
            except MtlError:
                if self.stopping():  # the stream was closed
                    return False
                raise
        return opened.finite and not self.stopping()

    def _check_any(self) -> None:
        if not self.frames:
            raise ImageError(f"{self.source.label}: no frame could be read from it")

    def _wait(self, why: str, attempts: int) -> None:
        if self._backoff is None:
            return
        seconds = self._backoff.wait()
        line = f"{why}; trying again in {seconds:.1f} s"
        if attempts & (attempts - 1) == 0:  # the first, the second, the fourth, ... for people
            self._say(logging.WARNING, line)
        else:
            _LOGGER.warning("%s", line)
        until = time.monotonic() + seconds
        while not self.stopping() and (left := until - time.monotonic()) > 0:
            self.beat = time.monotonic()
            self._stopping.wait(min(left, 1.0))

    def _say(self, level: int, line: str) -> None:
        _LOGGER.log(level, "%s", line)
        self._tell(line)
