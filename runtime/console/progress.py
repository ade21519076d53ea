"""Progress on standard error: a line that changes on a terminal, and few plain lines where it is a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .visible import terminal, visible

EVERY_S = 10.0
"""Seconds between the lines of a log: often enough that nobody believes the command hangs, and that no log fills."""


class Progress:
    """Progress lines on standard error.

    A terminal shows every step, with its seconds once it is done. Elsewhere, as in the log of a CI run, a whole line is written at
    most every ten seconds: what is being done, and for how long already. So a short command writes none, and a long
    one is never silent for longer.

    Args:
        quiet: show nothing.
        every_s: seconds between the lines of a log.
    """

    def __init__(self, *, quiet: bool = False, every_s: float = EVERY_S) -> None:
        self._shown = not quiet
        self._terminal = sys.stderr.isatty()
        self._every_s = every_s
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._doing = ""

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show ``text`` while the block runs, then its seconds; yield a function that adds a result to the line."""
        started = time.perf_counter()
        text = visible(text)
        results: list[str] = []
        with self._followed(text, started):
            self._write(f"{text} ...", end="")
            try:
                yield results.append
            except BaseException:
                self._write(f"\r\033[K{text}: failed")
                raise
        done = f"{text}: {'; '.join([*map(visible, results), f'{time.perf_counter() - started:.1f} s'])}"
        self._write(f"\r\033[K{done}")
        self._log(done)

    def update(self, text: str) -> None:
        """Replace the current line; for counters inside a step."""
        self._doing = visible(text)
        self._write(f"\r\033[K{self._doing}", end="")
        self._log(self._doing)

    @contextmanager
    def _followed(self, text: str, started: float) -> Iterator[None]:
        """Write to a log what is being done while the block runs, also where the block itself says nothing for long."""
        if not self._shown or self._terminal:
            yield
            return
        ended = threading.Event()
        around, self._doing = self._doing, text

        def follow() -> None:
            while not ended.wait(max(0.01, self._last + self._every_s - time.monotonic())):
                self._log(f"{self._doing} ... {time.perf_counter() - started:.0f} s")

        follower = threading.Thread(target=follow, name="progress", daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()
            self._doing = around

    def _log(self, text: str) -> None:
        """Write a line to a log, unless one was written a short time ago."""
        if not self._shown or self._terminal:
            return
        with self._lock:
            if time.monotonic() - self._last < self._every_s:
                return
            self._last = time.monotonic()
            with suppress(OSError, ValueError):  # nobody reads any more
                print(text, file=sys.stderr, flush=True)  # noqa: T201

    def _write(self, text: str, end: str = "\n") -> None:
        if self._shown and self._terminal:
            with suppress(OSError):  # a terminal that went away
                print(text, end=end, file=terminal(sys.stderr), flush=True)
