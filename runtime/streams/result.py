"""What a stream gives for each frame."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_deploy.runtime.predictions.decoding import Prediction

from .tracks import Track


@dataclass(frozen=True)
class Age:
    """How old a value is that was not computed for this frame.

    Attributes:
        frames: how many frames of its source ago it was computed; frames that were dropped do not count.
        seconds: from the submission of the frame that it was computed for to the submission of this one.
    """

    frames: int
    seconds: float


@dataclass(frozen=True)
class StreamResult:
    """What is known after one frame, or about one box in it. Times are in seconds of :func:`time.monotonic`.

    Attributes:
        number: of the frame in its stream, from 0; dropped frames have numbers too.
        source: as it was submitted.
        tag: as it was submitted.
        predictions: by task, in the order of the model's tasks. A task that is slower than every frame has its last value for
            this source, as :attr:`ages` says; it is missing as long as there is none. Empty where there is an error.
        fresh: the tasks that were computed for this frame.
        ages: of the values that are not fresh, by task.
        submitted: when the frame was submitted.
        started: when its preparation began.
        done: when its outputs were decoded, before any hook.
        error: why this frame has no predictions; None: it has.
        boxes: of a frame that was submitted with boxes, a result for each, in their order; its own predictions are empty. None: it
            was taken whole.
        box: of the result of a box: ``(x, y, width, height)`` as it was submitted; None: the result of a frame.
        key: the caller's, of the object in the box; None: without one a box has nothing in common with those of other frames.
    """

    number: int
    source: Hashable
    tag: Any
    predictions: Mapping[str, Prediction]
    fresh: frozenset[str]
    ages: Mapping[str, Age] = field(default_factory=dict)
    submitted: float = 0.0
    started: float = 0.0
    done: float = 0.0
    error: Exception | None = None
    boxes: tuple[StreamResult, ...] | None = None
    box: tuple[float, ...] | None = None
    key: Hashable = None

    @property
    def identity(self) -> Track | None:
        """Whose values these are: the source's (its key is None), or an object's; None: a box without a key, which is nobody's."""
        return None if self.box is not None and self.key is None else Track(self.source, self.key)

    @property
    def latency(self) -> float:
        """Seconds from the submission to the decoded outputs."""
        return self.done - self.submitted

    def __getitem__(self, task: str) -> Prediction:
        """Return a task's prediction.

        Raises:
            Exception: the frame's own error, where it has one.
            KeyError: there is no such task, or it has no value yet.
        """
        if self.error is not None:
            raise self.error
        return self.predictions[task]
