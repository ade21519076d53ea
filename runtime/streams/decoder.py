"""The last stage of a stream: results of what ran, with the last values of what was not due, passed through the hooks."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import replace

from mtl_deploy.runtime.predictions.decoding import Prediction

from .options import StreamOptions
from .rates import LastValues
from .result import Age, StreamResult
from .stages import Batch, Job, Steps, decode
from .tracks import Track


class Decoder:
    """Makes results of what ran, adds the last values of tasks that were not due, and passes them through the hooks.

    Args:
        steps: the model's.
        options: of the stream.
    """

    def __init__(self, steps: Steps, options: StreamOptions) -> None:
        self._steps = steps
        self._options = options
        self._last = LastValues(options.tasks) if any(frames > 1 for frames in options.every.values()) else None

    def results(self, batch: Batch) -> list[StreamResult]:
        """Return a result for each job, in order."""
        rows = decode(batch, self._steps)
        return [self._result(job, rows) for job in batch.jobs]

    def _result(self, job: Job, rows: Mapping[tuple[int, int], dict[str, Prediction]]) -> StreamResult:
        frame = job.frame
        whole = StreamResult(
            frame.number,
            frame.source,
            frame.tag,
            {},
            frozenset(),
            {},
            frame.submitted,
            job.started,
            time.monotonic(),
            job.error,
        )
        if frame.how.boxes is None:
            return self._hooked(self._filled(whole, job, frame.source, rows.get((frame.number, 0), {})))
        if job.error is not None:
            for identity in frame.how.identities(frame.source):
                if self._last is not None and isinstance(identity, Track):
                    self._last.passed(identity)
            return replace(whole, boxes=())
        boxes = []
        for position, box in enumerate(frame.how.boxes):
            key = None if frame.how.keys is None else frame.how.keys[position]
            one = replace(whole, box=tuple(map(float, box)), key=key)
            identity = None if key is None else Track(frame.source, key)
            boxes.append(self._hooked(self._filled(one, job, identity, rows.get((frame.number, position), {}))))
        return replace(whole, boxes=tuple(boxes))

    def _filled(self, empty: StreamResult, job: Job, identity: Hashable, row: dict[str, Prediction]) -> StreamResult:
        """Return a result with what was computed, and the last values of whom it belongs to; without a key a box has none."""
        predictions: Mapping[str, Prediction] = row
        ages: Mapping[str, Age] = {}
        if self._last is not None and (empty.box is None or identity is not None):
            if job.error is None:
                predictions, ages = self._last.completed(identity, row, job.frame.submitted)
            else:
                self._last.passed(identity)
        return replace(empty, predictions=predictions, fresh=frozenset(row), ages=ages)

    def _hooked(self, result: StreamResult) -> StreamResult:
        try:
            for hook in self._options.hooks_of(result.source, result.key):
                changed = hook(result)
                if not isinstance(changed, StreamResult):
                    raise TypeError(f"the hook {hook!r} returned {type(changed).__name__}; return a StreamResult")
                result = changed
        except Exception as error:  # noqa: BLE001 - it belongs to this frame
            return replace(result, predictions={}, fresh=frozenset(), ages={}, error=error)
        return result
