"""Ctrl-C (INT), a termination (TERM) and a terminal that goes away (HUP): all three end a command in the same tidy way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def noting(interrupts: list[int]) -> Iterator[None]:
    """Note each signal's number, and raise KeyboardInterrupt at the first one only: a second one must not interrupt the tidying up.

    A HUP or TERM that is ignored (``nohup``) stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        interrupts.append(number)
        if len(interrupts) == 1:
            raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Delay signals until the block has ended, for steps that belong together; then they take their usual effect."""
    pending: list[int] = []
    with _handled_by(lambda number, _: pending.append(number)):
        yield
    for number in pending:
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
