"""Frames that wait: a queue for each source, what is dropped, and whose turn it is."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from mtl_deploy.runtime.errors import RunError

from .options import Drop
from .signal import Found, Signal
from .submission import WHOLE, Submission

_LOGGER = logging.getLogger("mtl_deploy.stream")


@dataclass(frozen=True)
class Frame:
    """A frame as it was submitted; see :class:`~mtl_deploy.runtime.streams.result.StreamResult`."""

    image: Any
    source: Hashable
    tag: Any
    number: int
    submitted: float
    how: Submission = WHOLE


class Waiting:
    """Frames between their submission and their preparation.

    Sources take turns: each batch has at most one frame of a source, and a source that could not be served comes first
    next time.

    Args:
        queue: the most frames of one source.
        drop: see :class:`~mtl_deploy.runtime.streams.options.StreamOptions`.
    """

    def __init__(self, queue: int, drop: Drop) -> None:
        self._queue = queue
        self._drop = drop
        self._signal = Signal()
        self._numbers = itertools.count()
        self._frames: dict[Hashable, deque[Frame]] = {}  # of sources with a frame that waits, whose turn is next first
        self._dropped: dict[Hashable, int] = {}
        self._open = True
        self.submitted = 0

    @property
    def dropped(self) -> dict[Hashable, int]:
        """By source, how many frames were dropped; sources without any are left out."""
        with self._signal.reading():
            return dict(self._dropped)

    def submit(self, image: Any, source: Hashable, tag: Any, timeout: float | None, how: Submission = WHOLE) -> bool:
        """Add a frame.

        Args:
            image: the frame.
            source: whose it is.
            tag: anything.
            timeout: seconds to wait at most, where the policy is to wait; None: no limit.
            how: it is to be taken.

        Returns:
            Whether it was taken.

        Raises:
            RunError: the stream has ended.
        """
        submitted = time.monotonic()
        found = self._signal.wait(lambda: self._add(image, source, tag, submitted, how), timeout)
        if found is None:
            with self._signal.changing():
                self._refuse(source)
            return False
        return found.value

    async def submit_async(self, image: Any, source: Hashable, tag: Any, how: Submission = WHOLE) -> bool:
        """Do the same from asyncio, without a time limit."""
        submitted = time.monotonic()
        return (await self._signal.wait_async(lambda: self._add(image, source, tag, submitted, how))).value

    def take(self, most: int) -> list[Frame] | None:
        """Return the next frames, one of each source, as soon as there is one; None: the stream has ended.

        Args:
            most: how many, 1 or more.
        """
        found = self._signal.wait(lambda: self._next(most))
        return None if found is None else found.value

    def finish(self) -> None:
        """Take no more frames; those that wait can still be taken."""
        with self._signal.changing():
            self._open = False

    def close(self) -> int:
        """Take no more frames, and forget those that wait; returns how many."""
        with self._signal.changing():
            self._open = False
            left = sum(map(len, self._frames.values()))
            self._frames.clear()
            return left

    def _add(self, image: Any, source: Hashable, tag: Any, submitted: float, how: Submission) -> Found[bool] | None:
        if not self._open:
            raise RunError(
                "the stream takes no more frames: it was finished or closed; make another with model.stream()"
            )
        waiting = self._frames.get(source, ())
        if len(waiting) >= self._queue:
            if self._drop == "wait":
                return None
            if self._drop == "newest":
                self._refuse(source)
                return Found(False)
            self._frames[source].popleft()
            self._lose(source)
        self._frames.setdefault(source, deque()).append(Frame(image, source, tag, next(self._numbers), submitted, how))
        self.submitted += 1
        return Found(True)

    def _next(self, most: int) -> Found[list[Frame] | None] | None:
        if not self._frames:
            return None if self._open else Found(None)
        turns = list(itertools.islice(self._frames, most))
        frames = []
        for source in turns:
            waiting = self._frames.pop(source)
            frames.append(waiting.popleft())
            if waiting:
                self._frames[source] = waiting  # behind the others
        return Found(frames)

    def _refuse(self, source: Hashable) -> None:
        """Count a frame that was submitted and not taken."""
        next(self._numbers)
        self.submitted += 1
        self._lose(source)

    def _lose(self, source: Hashable) -> None:
        """Count a frame that is dropped, and log the first, the second, the fourth, the eighth and so on of a source."""
        count = self._dropped[source] = self._dropped.get(source, 0) + 1
        if count & (count - 1) == 0:
            _LOGGER.warning(
                "source %r: %d frames dropped so far (drop=%r, queue=%d)", source, count, self._drop, self._queue
            )
