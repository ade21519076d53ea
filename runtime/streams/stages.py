"""The three stages of a stream: preparing, running, decoding. Each has a thread; what fails for one frame is that frame's error."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import ImageError
from mtl_deploy.runtime.images.fit import ImagePlacement
from mtl_deploy.runtime.images.parallel import each
from mtl_deploy.runtime.images.tensors import PreparedImages
from mtl_deploy.runtime.predictions.decoding import Prediction

from .rates import Rates
from .submission import Submission
from .waiting import Frame

Outputs = Mapping[str, Any]


@dataclass(frozen=True)
class Steps:
    """What a model does with a frame, one function for each stage.

    Attributes:
        prepare: turns one image, or the boxes in it, into tensors.
        run: computes the named tasks of a batch of any size: outputs of as many rows as the artifact takes at once, in order; the
            last may have more rows than are left, for its padding.
        decode: turns outputs into a prediction per task for each placement.
    """

    prepare: Callable[[Any, Submission], PreparedImages]
    run: Callable[[Any, Sequence[str]], Iterable[Outputs]]
    decode: Callable[[Outputs, Sequence[ImagePlacement]], list[dict[str, Prediction]]]


@dataclass
class Job:
    """A frame on its way through the stages: tensors with the positions of their rows among the frame's placements."""

    frame: Frame
    started: float
    tensors: Sequence[tuple[Any, Sequence[int]]] = ()
    placements: Sequence[ImagePlacement] = ()
    error: Exception | None = None


Row = tuple[Job, int]
"""A row of a batch: a frame, or one box of it, by its position."""


@dataclass
class Batch:
    """Jobs that go together, in the order of their submission, and what ran: outputs with the rows that they belong to."""

    jobs: list[Job]
    ran: list[tuple[Outputs, list[Row]]] = field(default_factory=list)


def prepare(frames: Sequence[Frame], steps: Steps) -> Batch:
    """Prepare frames that will run together, in several threads."""
    return Batch(each(lambda index: _prepared(frames[index], steps), len(frames)))


def _prepared(frame: Frame, steps: Steps) -> Job:
    job = Job(frame, time.monotonic())
    try:
        prepared = steps.prepare(frame.image, frame.how)
        if frame.how.boxes is None and len(prepared.placements) != 1:
            raise ImageError(f"a frame is one image; got a batch of {len(prepared.placements)}: submit them one by one")
        job.tensors, job.placements = prepared.batches, prepared.placements
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to this frame
        job.error = error
    return job


def run(batch: Batch, steps: Steps, rates: Rates) -> Batch:
    """Compute what is due, once for each size of the frames."""
    jobs = [job for job in batch.jobs if job.error is None]
    due = rates.due(identity for job in jobs for identity in job.frame.how.identities(job.frame.source))
    for tensors, rows in _alike(jobs):
        try:
            found = list(steps.run(_together(tensors), due)) if due else [{}]
            done = 0
            for outputs in found:
                count = min((len(output) for output in outputs.values()), default=len(rows))
                batch.ran.append((outputs, rows[done : done + count]))
                done += count
        except Exception as error:  # noqa: BLE001, PERF203 - as above
            for job, _ in rows:
                job.error = error
    for job in jobs:
        job.tensors = ()  # not needed any more
        if job.error is None:
            for identity in job.frame.how.identities(job.frame.source):
                rates.ran(identity, due, job.frame.submitted)
    return batch


def decode(batch: Batch, steps: Steps) -> dict[tuple[int, int], dict[str, Prediction]]:
    """Return the predictions by the frame's number and the row's position."""
    rows: dict[tuple[int, int], dict[str, Prediction]] = {}
    for outputs, ran in batch.ran:
        try:
            placements = [job.placements[position] for job, position in ran]
            found = steps.decode(outputs, placements) if outputs else [{} for _ in ran]
        except Exception as error:  # noqa: BLE001 - as above
            for job, _ in ran:
                job.error = error
            continue
        rows |= {(job.frame.number, position): row for (job, position), row in zip(ran, found, strict=True)}
    return rows


def _alike(jobs: Sequence[Job]) -> list[tuple[list[Any], list[Row]]]:
    """Return the tensors that can be one batch, with their rows; one on the GPU runs alone."""
    groups: dict[Hashable, tuple[list[Any], list[Row]]] = {}
    for job in jobs:
        for tensor, positions in job.tensors:
            apart = not isinstance(tensor, np.ndarray)
            key = job.frame.number if apart else (tensor.shape[1:], tensor.dtype.str)
            tensors, rows = groups.setdefault(key, ([], []))
            tensors.append(tensor)
            rows += [(job, position) for position in positions]
    return list(groups.values())


def _together(tensors: Sequence[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
