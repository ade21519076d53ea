"""A stream: frames are submitted, prepared, run and decoded side by side, and their results collected in order."""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mtl_deploy.runtime.errors import OptionError, RunError
from mtl_deploy.runtime.forks import Origin

from .decoder import Decoder
from .handoff import Handoff
from .options import StreamOptions
from .rates import Rates
from .result import StreamResult
from .stages import Batch, Steps, prepare, run
from .submission import Submission
from .waiting import Waiting

_LOGGER = logging.getLogger("mtl_deploy.stream")


@dataclass(frozen=True)
class StreamCounts:
    """What a stream has done so far.

    Attributes:
        submitted: frames, those that were dropped at once among them.
        delivered: results that were passed to the callback, or that can be or were collected.
        failed: those of them that have an error.
        dropped: by source, frames that came to nothing because others took their place.
    """

    submitted: int
    delivered: int
    failed: int
    dropped: dict[Hashable, int]


class Stream:
    """Frames in, results out; those of a source come in its frames' order. Made by :meth:`~mtl_deploy.runtime.Model.stream`.

    Safe to use from several threads. In a ``with`` block: at its end :meth:`finish` and :meth:`join` where there is a callback,
    :meth:`close` otherwise and after an exception.

    Args:
        steps: the model's.
        options: how frames are treated.
    """

    def __init__(self, steps: Steps, options: StreamOptions) -> None:
        self._steps = steps
        self._options = options
        self._origin = Origin("the stream", "load the model and make the stream in the child", self)
        self._waiting = Waiting(options.queue, options.drop)
        self._prepared: Handoff[Batch] = Handoff()
        self._ran: Handoff[Batch] = Handoff()
        self._results: Handoff[StreamResult] = Handoff(options.results)
        self._delivered = self._failed = 0
        self._broken: BaseException | None = None  # what ended the stream
        self._callback_error: Exception | None = None  # the first
        stages = (("prepare", self._prepare_all), ("run", self._run_all), ("decode", self._decode_all))
        self._threads = [
            threading.Thread(target=self._guarded, args=(stage,), name=f"mtl-stream-{name}", daemon=True)
            for name, stage in stages
        ]
        _OPEN.add(self)
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        frame: Any,
        *,
        source: Hashable = None,
        tag: Any = None,
        timeout: float | None = None,
        layout: str | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        margin: float = 0.0,
        keys: Sequence[Hashable] | None = None,
    ) -> bool:
        """Add a frame.

        Args:
            frame: one image, as :meth:`~mtl_deploy.runtime.Model.predict` takes it. An array is not copied: do not write to it
                before its result has come.
            source: which camera it is from. Each source has a queue, rates and hooks of its own.
            tag: anything; the result has it.
            timeout: with ``drop="wait"``, seconds to wait for room, after which the frame is dropped; None: no limit.
            layout: of an array, as for ``predict``; None: the model's.
            boxes: to cut out of the frame and to predict each by itself, ``(x, y, width, height)`` in its pixels, as for
                ``predict``. They run as one batch; the result's ``boxes`` has one for each.
            margin: that is cut out around each box, on each side: a share of its width and height.
            keys: by which the caller knows the object in each box again, such as a tracker's numbers. Hooks, rates and last values
                go by them; an object that was not seen for a minute is forgotten. None: boxes of two frames have nothing in common.

        Returns:
            Whether it was taken; False: it was dropped, as too many wait.

        Raises:
            RunError: the stream has ended, or this is a forked child.
            OptionError: the source or a key cannot be the key of a dict, keys and boxes do not fit together, or there is no such
                layout.
        """
        self._check(source)
        return self._waiting.submit(frame, source, tag, timeout, Submission(layout, boxes, margin, keys))

    async def submit_async(
        self,
        frame: Any,
        *,
        source: Hashable = None,
        tag: Any = None,
        layout: str | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        margin: float = 0.0,
        keys: Sequence[Hashable] | None = None,
    ) -> bool:
        """Do the same from asyncio: with ``drop="wait"`` the event loop goes on meanwhile."""
        self._check(source)
        return await self._waiting.submit_async(frame, source, tag, Submission(layout, boxes, margin, keys))

    def result(self, timeout: float | None = None) -> StreamResult | None:
        """Return the next result; None: there are no more, or none came in time.

        Args:
            timeout: seconds to wait at most, 0 for what is there; None: no limit.

        Raises:
            OptionError: results go to the callback.
            RunError: the stream broke down, or this is a forked child.
        """
        self._check_collecting()
        found = self._results.take(timeout)
        return None if found is None else self._or_broken(found.value)

    def ready(self) -> list[StreamResult]:
        """Return the results that are there, without waiting: for a loop that submits and collects in turn."""
        return list(iter(lambda: self.result(0), None))

    def __iter__(self) -> Iterator[StreamResult]:
        """Yield results as they come, until :meth:`finish` was called and all are there, or :meth:`close` was."""
        return iter(self.result, None)

    async def __aiter__(self) -> AsyncIterator[StreamResult]:
        """Do the same for ``async for``."""
        self._check_collecting()
        while (found := self._or_broken(await self._results.take_async())) is not None:
            yield found

    @property
    def counts(self) -> StreamCounts:
        """How many frames were submitted, delivered, failed and dropped."""
        self._origin.check()
        return StreamCounts(self._waiting.submitted, self._delivered, self._failed, self._waiting.dropped)

    def finish(self) -> None:
        """Take no more frames. Those that wait still run; iteration ends after the last of them."""
        if not self._origin.forked:
            self._waiting.finish()

    def join(self) -> None:
        """Wait until all frames have run, after :meth:`finish`; with results to collect, until there is room for the last ones.

        Raises:
            Exception: what a callback raised first.
            RunError: the stream broke down.
        """
        self._origin.check()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        _OPEN.discard(self)
        self._or_broken(None)
        if self._callback_error is not None:
            error, self._callback_error = self._callback_error, None
            raise error

    def close(self) -> None:
        """End at once: frames that wait are forgotten, and so are results that nobody has collected. A call that runs is awaited.

        Closing twice is allowed, and so is closing from the callback or a hook.

        Raises:
            Exception: what a callback raised first.
        """
        if self._origin.forked:
            return
        if left := self._waiting.close():
            _LOGGER.info("closed with %d frames that still waited", left)
        for handoff in (self._prepared, self._ran, self._results):
            handoff.close()
        self.join()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._origin.forked:
            return
        if error is not None:
            self._abandon()
        elif self._options.callback is not None:
            self.finish()
            self.join()
        else:
            self.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)

    def _abandon(self) -> None:
        """Close behind another error, which is the one to be seen."""
        try:
            self.close()
        except Exception:
            _LOGGER.exception("an error of the stream or its callback, behind another error")

    def _check(self, source: Hashable) -> None:
        self._origin.check()
        try:
            hash(source)
        except TypeError as error:
            raise OptionError(f"source={source!r}: {error}; use a name or a number") from error
        self._or_broken(None)

    def _check_collecting(self) -> None:
        self._origin.check()
        if self._options.callback is not None:
            raise OptionError("the results of this stream go to its callback; leave callback= out to collect them")

    def _or_broken(self, found: StreamResult | None) -> StreamResult | None:
        if found is None and self._broken is not None:
            raise RunError(f"the stream broke down: {self._broken!r}; make another") from self._broken
        return found

    def _guarded(self, stage: Callable[[], None]) -> None:
        """Run a stage to its end; what no frame can be blamed for ends the stream, so that nobody waits for ever."""
        try:
            stage()
        except BaseException as error:
            self._broken = self._broken or error
            _LOGGER.exception("the stream broke down")
            self._waiting.close()
            for handoff in (self._prepared, self._ran, self._results):
                handoff.close()

    def _prepare_all(self) -> None:
        while (frames := self._waiting.take(self._options.batch)) is not None:
            self._prepared.put(prepare(frames, self._steps))
        self._prepared.end()

    def _run_all(self) -> None:
        rates = Rates(self._options.tasks, self._options.every)
        while (found := self._prepared.take()) is not None and (batch := found.value) is not None:
            self._ran.put(run(batch, self._steps, rates))
        self._ran.end()

    def _decode_all(self) -> None:
        decoder = Decoder(self._steps, self._options)
        while (found := self._ran.take()) is not None and (batch := found.value) is not None:
            for result in decoder.results(batch):
                self._deliver(result)
        self._results.end()

    def _deliver(self, result: StreamResult) -> None:
        if self._results.closed:
            return
        self._delivered += 1
        errors = [one.error for one in (result, *(result.boxes or ())) if one.error is not None]
        if errors:
            self._failed += 1
            _LOGGER.info("frame %d of source %r: %s", result.number, result.source, errors[0])
        if self._options.callback is None:
            self._results.put(result)
            return
        try:
            self._options.callback(result)
        except Exception as error:
            _LOGGER.exception("the callback failed for frame %d of source %r", result.number, result.source)
            self._callback_error = self._callback_error or error


_OPEN: weakref.WeakSet[Stream] = weakref.WeakSet()


def _close_all() -> None:
    """End what the application left open, before the interpreter takes away what the threads work with."""
    for stream in list(_OPEN):
        stream._abandon()


atexit.register(_close_all)
