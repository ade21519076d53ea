"""Waiting for something to change, from a thread or from asyncio, by the same attempt."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Found(Generic[T]):
    """What an attempt found; an attempt that must wait returns None instead."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class Signal:
    """A lock with those who wait for a change of what it guards. An attempt runs under the lock; it takes what it finds."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._tokens = itertools.count()
        self._wakers: dict[int, Callable[[], object]] = {}

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, and wake all who wait afterwards."""
        with self._condition:
            yield
            self._wake()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the lock."""
        with self._condition:
            yield

    def wait(self, attempt: Callable[[], Found[T] | None], timeout: float | None = None) -> Found[T] | None:
        """Return what an attempt finds, as soon as it finds something.

        Args:
            attempt: tried now, and after each change.
            timeout: seconds after which None is returned; None: no limit.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while (found := attempt()) is None:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._condition.wait(left)
            self._wake()  # what it took makes room for others
            return found

    async def wait_async(self, attempt: Callable[[], Found[T] | None]) -> Found[T]:
        """Do the same without holding up the event loop. A task that is cancelled while it waits has taken nothing."""
        loop = asyncio.get_running_loop()
        while True:
            woken = asyncio.Event()
            with self._condition:
                if (found := attempt()) is not None:
                    self._wake()
                    return found
                token = next(self._tokens)
                self._wakers[token] = lambda event=woken: loop.call_soon_threadsafe(event.set)  # type: ignore[misc]
            try:
                await woken.wait()
            finally:
                with self._condition:
                    self._wakers.pop(token, None)

    def _wake(self) -> None:
        self._condition.notify_all()
        wakers, self._wakers = self._wakers, {}
        for wake in wakers.values():
            with contextlib.suppress(RuntimeError):  # that event loop is closed
                wake()
