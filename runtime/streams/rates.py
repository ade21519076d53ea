"""A rate for each task: which are due for a frame, and the last values of those that are not."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from mtl_deploy.runtime.predictions.decoding import Prediction

from .result import Age
from .tracks import Absent


class Rates:
    """Says which tasks are due. A task counts from when it was last computed for a source, whatever was dropped or failed since.

    Frames of several sources that run together get the same tasks: those that are due for any of them. The others gain a value for
    nothing, and are next due with them, so that sources fall into step. A source is here what a value belongs to: a camera, or one
    object in its frames (:class:`~mtl_deploy.runtime.streams.tracks.Track`).

    Args:
        tasks: all that are computed, in order.
        every: frames from one computation to the next, by task; those not named: 1.
    """

    def __init__(self, tasks: Sequence[str], every: Mapping[str, int]) -> None:
        self._tasks = tasks
        self._every = every
        self._frames: dict[Hashable, int] = {}  # that ran, by source
        self._last: dict[Hashable, dict[str, int]] = {}  # by source and task: the frame for which it was last computed
        self._absent = Absent()

    def due(self, sources: Iterable[Hashable]) -> list[str]:
        """Return the tasks to compute for one frame of each of these sources."""
        listed = list(sources)
        return [task for task in self._tasks if any(self._is_due(source, task) for source in listed)]

    def ran(self, source: Hashable, computed: Iterable[str], now: float = 0.0) -> None:
        """Count a frame of a source for which these tasks were computed. One that failed is not counted: what was due still is.

        Args:
            source: whose frame it was.
            computed: the tasks.
            now: seconds of any clock, by which objects that have gone are forgotten.
        """
        frame = self._frames.get(source, 0)
        self._frames[source] = frame + 1
        self._last.setdefault(source, {}).update(dict.fromkeys(computed, frame))
        for gone in self._absent.since(source, now):
            self._frames.pop(gone, None)
            self._last.pop(gone, None)

    def _is_due(self, source: Hashable, task: str) -> bool:
        last = self._last.get(source, {}).get(task)
        return last is None or self._frames[source] - last >= self._every.get(task, 1)


class LastValues:
    """The last prediction of each task for each source, which is here as in :class:`Rates`.

    Args:
        tasks: all that are computed, in order.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tasks
        self._frames: dict[Hashable, int] = {}
        self._values: dict[Hashable, dict[str, tuple[Prediction, int, float]]] = {}
        self._absent = Absent()

    def completed(
        self, source: Hashable, fresh: Mapping[str, Prediction], submitted: float
    ) -> tuple[dict[str, Prediction], dict[str, Age]]:
        """Return a frame's predictions with the last values of the other tasks, and how old these are.

        Args:
            source: whose frame it is.
            fresh: what was computed for it.
            submitted: when the frame was submitted, in seconds.
        """
        frame = self._frames[source] = self._frames.get(source, -1) + 1
        values = self._values.setdefault(source, {})
        values.update({task: (value, frame, submitted) for task, value in fresh.items()})
        for gone in self._absent.since(source, submitted):
            self._frames.pop(gone, None)
            self._values.pop(gone, None)
        predictions, ages = {}, {}
        for task in self._tasks:
            if (found := values.get(task)) is None:
                continue
            predictions[task] = found[0]
            if task not in fresh:
                ages[task] = Age(frame - found[1], submitted - found[2])
        return predictions, ages

    def passed(self, source: Hashable) -> None:
        """Count a frame of a source that has no predictions."""
        self._frames[source] = self._frames.get(source, -1) + 1
