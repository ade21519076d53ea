"""From one stage of a stream to the next, and from the last to whoever collects."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from .signal import Found, Signal

T = TypeVar("T")


class Handoff(Generic[T]):
    """Passes things in order; who puts waits until there is room.

    Args:
        room: how many may lie there. 0: whoever puts waits until the thing is taken, so that the stage before begins with its next
            frame as late as possible, and that frame is as new as possible.
    """

    def __init__(self, room: int = 0) -> None:
        self._room = room
        self._signal = Signal()
        self._things: deque[T] = deque()
        self._ended = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody will take anything any more."""
        with self._signal.reading():
            return self._closed

    def put(self, thing: T) -> bool:
        """Pass a thing on; returns whether it will be taken: not once this is closed."""
        self._signal.wait(lambda: Found(True) if self._closed or len(self._things) < max(1, self._room) else None)
        with self._signal.changing():  # one thread puts, so there is still room
            if self._closed:
                return False
            self._things.append(thing)
        if not self._room:
            self._signal.wait(lambda: Found(True) if self._closed or not self._things else None)
        return not self._closed

    def end(self) -> None:
        """Put nothing more; what lies there can still be taken."""
        with self._signal.changing():
            self._ended = True

    def close(self) -> None:
        """Forget what lies there, and let nobody wait any longer."""
        with self._signal.changing():
            self._closed = self._ended = True
            self._things.clear()

    def take(self, timeout: float | None = None) -> Found[T | None] | None:
        """Return the next thing, or what holds None once there are no more; None: there was nothing within ``timeout`` seconds."""
        return self._signal.wait(self._next, timeout)

    async def take_async(self) -> T | None:
        """Return the next thing; None: there are no more."""
        return (await self._signal.wait_async(self._next)).value

    def _next(self) -> Found[T | None] | None:
        if self._things:
            return Found(self._things.popleft())
        return Found(None) if self._ended else None
