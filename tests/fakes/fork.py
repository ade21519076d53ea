"""The simulated CUDA driver, with captures that fork to other streams and join again, as the real one has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fakes.cuda import Code, SimCapture, SimStream, SimulatedCuda


class ForkingCuda(SimulatedCuda):
    """An event that is recorded while a stream is captured pulls the streams that wait for it into the capture.

    All of them must be joined to the first one, by an event recorded after their last work, before the capture ends.
    """

    @classmethod
    def extend(cls, driver: SimulatedCuda) -> ForkingCuda:
        """Let an existing driver fork."""
        driver.__class__ = cls
        forking: Any = driver
        forking.captured = {}
        forking.forked = {}
        return forking  # type: ignore[no-any-return]

    captured: dict[int, tuple[SimCapture, SimStream]]  # by event
    forked: dict[SimCapture, set[int]]  # the streams of a capture whose last work is not joined

    def cuEventRecord(self, event: Any, stream: Any) -> Any:
        with self.lock:
            on = self._stream(stream)
            if on.capture is None:
                self.captured.pop(int(event), None)
                return super().cuEventRecord(event, stream)
            self.captured[int(event)] = (on.capture, on)
            return (Code.CUDA_SUCCESS,)

    def cuStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> Any:
        with self.lock:
            mark = self.captured.get(int(event))
            if mark is None:
                return super().cuStreamWaitEvent(stream, event, flags)
            capture, source = mark
            on = self._stream(stream)
            if on.capture is None:
                on.capture = capture
            self._open(capture).discard(self._number(source))
            return (Code.CUDA_SUCCESS,)

    def cuStreamEndCapture(self, stream: Any) -> Any:
        with self.lock:
            capture = self._stream(stream).capture
            left = self._open(capture) - {int(stream)} if capture is not None else set()
            for other in self.streams.values():
                if capture is not None and other.capture is capture and other is not self._stream(stream):
                    other.capture = None
            code, *graph = super().cuStreamEndCapture(stream)
            if code == Code.CUDA_SUCCESS and left:
                self.cuGraphDestroy(graph[0])
                return (Code.CUDA_ERROR_STREAM_CAPTURE_UNJOINED, None)
            return (code, *graph)

    def enqueue(self, stream: Any, work: Callable[[], None]) -> None:
        capture = self._stream(stream).capture
        if capture is not None:
            self._open(capture).add(int(stream))
        super().enqueue(stream, work)

    def _open(self, capture: SimCapture) -> set[int]:
        return self.forked.setdefault(capture, set())

    def _number(self, stream: SimStream) -> int:
        return next(handle for handle, found in self.streams.items() if found is stream)
