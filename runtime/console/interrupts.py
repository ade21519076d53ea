"""Ctrl-C (INT), a termination (TERM) and a terminal that goes away (HUP): all three end a command in the same tidy way.

Python's handlers run between two steps of the main thread, so a library's long call delays them: the building of an engine takes
minutes. Whoever sends a second signal does not want to wait that long; a thread of its own, which the system's part of Python's
handler writes to, then ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from mtl_deploy.runtime.signals import remove_unfinished

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

PATIENCE = 1.0
"""Seconds after a first signal in which others count as the same one: a shell and a service manager send several at a time."""

WATCHER = "mtl-signals"
"""The name of the thread that waits for a second signal; it holds nothing while it waits."""

_STEPS = threading.RLock()  # held by steps that belong together
_repeated: list[int] = []  # signals that were held, and are sent again by this process itself


@contextmanager
def noting(interrupts: list[int]) -> Iterator[None]:
    """Note each signal's number, and raise KeyboardInterrupt at the first one only: a second one must not interrupt the tidying up.

    Where the tidying up takes longer than :data:`PATIENCE`, or the work itself does not end, another signal ends the process at
    once, with the first one's exit code; files that were not finished are removed. A HUP or TERM that is ignored (``nohup``) stays
    ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        interrupts.append(number)
        if len(interrupts) == 1:
            raise KeyboardInterrupt

    with _handled_by(interrupt), _impatient():
        yield


@contextmanager
def _impatient() -> Iterator[None]:
    """End the process where a second signal comes, whatever the main thread is doing."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reading,), name=WATCHER, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        os.close(writing)
        watcher.join()
        os.close(reading)


def _watch(reading: int) -> None:
    first: tuple[int, float] | None = None
    while numbers := os.read(reading, 64):
        for number in numbers:
            if number in _repeated:
                _repeated.remove(number)
                continue
            if number not in SIGNALS:
                continue
            if first is None:
                first = number, time.monotonic()
            elif time.monotonic() - first[1] > PATIENCE:
                with _STEPS:
                    remove_unfinished()
                    with suppress(OSError, ValueError):
                        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"ended at once\n")
                    os._exit(128 + first[0])


@contextmanager
def held() -> Iterator[None]:
    """Delay signals until the block has ended, for steps that belong together; then they take their usual effect."""
    pending: list[int] = []
    with _STEPS, _handled_by(lambda number, _: pending.append(number)):
        yield
    for number in pending:
        _repeated.append(number)
        signal.raise_signal(number)


@contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # handlers belong to it
        for number in SIGNALS:
            current = signal.getsignal(number)
            ignored = (
                current is signal.SIG_IGN and number != signal.SIGINT
            )  # shells ignore that one for background jobs
            if not ignored and current is not None:  # None: not Python's
                previous[number] = current
    try:
        for number in previous:
            signal.signal(number, handler)
        yield
    finally:
        for number, current in previous.items():
            signal.signal(number, current)
