"""The three stages of a stream: preparing, running, decoding. Each has a thread; what fails for one frame is that frame's error."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.images.parallel import each
from mtl_deploy.runtime.images.tensors import PreparedImages
from mtl_deploy.runtime.predictions.decoding import Prediction

from .options import StreamOptions
from .rates import LastValues, Rates
from .result import Age, StreamResult
from .waiting import Frame


@dataclass(frozen=True)
class Steps:
    """What a model does with a frame, one function for each stage.

    Attributes:
        prepare: turns one image into a tensor of batch 1.
        run: computes the named tasks of a batch; it may return more rows than the batch has, for its padding.
        decode: turns outputs into a prediction per task for each placement.
    """

    prepare: Callable[[Any], PreparedImages]
    run: Callable[[Any, Sequence[str]], Mapping[str, Any]]
    decode: Callable[[Mapping[str, Any], Sequence[ImagePlacement]], list[dict[str, Prediction]]]


@dataclass
class Job:
    """A frame on its way through the stages."""

    frame: Frame
    started: float
    tensor: Any = None
    placement: ImagePlacement | None = None
    error: Exception | None = None


@dataclass
class Batch:
    """Jobs that go together, in the order of their submission, and what ran: outputs with the jobs that they belong to."""

    jobs: list[Job]
    ran: list[tuple[Mapping[str, Any], list[Job]]] = field(default_factory=list)


def prepare(frames: Sequence[Frame], steps: Steps) -> Batch:
    """Prepare frames that will run together, in several threads."""
    return Batch(each(lambda index: _prepared(frames[index], steps), len(frames)))


def _prepared(frame: Frame, steps: Steps) -> Job:
    job = Job(frame, time.monotonic())
    try:
        prepared = steps.prepare(frame.image)
        if len(prepared.placements) != 1:
            raise ImageError(f"a frame is one image; got a batch of {len(prepared.placements)}: submit them one by one")
        job.tensor, job.placement = prepared.batches[0][0], prepared.placements[0]
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this frame
        job.error = error
    return job


def run(batch: Batch, steps: Steps, rates: Rates) -> Batch:
    """Compute what is due, once for each size of the frames."""
    ready = [job for job in batch.jobs if job.error is None]
    due = rates.due(job.frame.source for job in ready)
    for jobs in _alike(ready):
        try:
            outputs = steps.run(_together(jobs), due) if due else {}
        except Exception as error:  # noqa: BLE001 - as above
            for job in jobs:
                job.error = error
            continue
        finally:
            for job in jobs:
                job.tensor = None  # not needed any more
        for job in jobs:
            rates.ran(job.frame.source, due)
        batch.ran.append((outputs, jobs))
    return batch


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
        rows: dict[int, dict[str, Prediction]] = {}
        for outputs, jobs in batch.ran:
            placements = [job.placement for job in jobs if job.placement is not None]
            try:
                found = self._steps.decode(outputs, placements) if outputs else [{} for _ in jobs]
            except Exception as error:  # noqa: BLE001 - as above
                for job in jobs:
                    job.error = error
                continue
            rows.update({job.frame.number: row for job, row in zip(jobs, found, strict=True)})
        return [self._hooked(self._result(job, rows.get(job.frame.number, {}))) for job in batch.jobs]

    def _result(self, job: Job, row: dict[str, Prediction]) -> StreamResult:
        frame = job.frame
        predictions: Mapping[str, Prediction] = row
        ages: Mapping[str, Age] = {}
        if self._last is not None:
            if job.error is None:
                predictions, ages = self._last.completed(frame.source, row, frame.submitted)
            else:
                self._last.passed(frame.source)
        return StreamResult(
            frame.number,
            frame.source,
            frame.tag,
            predictions,
            frozenset(row),
            ages,
            frame.submitted,
            job.started,
            time.monotonic(),
            job.error,
        )

    def _hooked(self, result: StreamResult) -> StreamResult:
        try:
            for hook in self._options.hooks_of(result.source):
                changed = hook(result)
                if not isinstance(changed, StreamResult):
                    raise TypeError(f"the hook {hook!r} returned {type(changed).__name__}; return a StreamResult")
                result = changed
        except Exception as error:  # noqa: BLE001 - as above
            return replace(result, predictions={}, fresh=frozenset(), ages={}, error=error)
        return result


def _alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs whose tensors can be one batch; one on the GPU runs alone."""
    groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        apart = not isinstance(job.tensor, np.ndarray)
        key = job.frame.number if apart else (job.tensor.shape, job.tensor.dtype.str)
        groups.setdefault(key, []).append(job)
    return list(groups.values())


def _together(jobs: Sequence[Job]) -> Any:
    return jobs[0].tensor if len(jobs) == 1 else np.concatenate([job.tensor for job in jobs])
