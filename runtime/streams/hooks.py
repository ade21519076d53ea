"""Ready hooks: values and classes that do not flicker from frame to frame.

A hook is any callable that takes a :class:`~mtl_deploy.runtime.streams.result.StreamResult` and returns one, with
:func:`dataclasses.replace`. It is called for each result of a stream, in order, from one thread, before the result is delivered;
one with an :attr:`~mtl_deploy.runtime.streams.result.StreamResult.error` has no predictions. Of a frame with boxes, it is called
for each box: the ready ones keep the objects apart by their keys, and leave boxes without one as they are.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.predictions.decoding import Kind, Prediction, kind_of

from .result import StreamResult
from .tracks import Absent, Track

T = TypeVar("T")


@dataclass(frozen=True)
class _Smoothed:
    value: Any
    seconds: float  # when its last frame was submitted


class ExponentialSmoother:
    """Smooths values in a unit: ``smoothed += weight * (value - smoothed)``, from the first value of a source or object on.

    Exponential smoothing as in C. C. Holt, "Forecasting seasonals and trends by exponentially weighted moving averages" (1957,
    reprinted in International Journal of Forecasting 20, 2004). A value that is not fresh counts once; NaN and infinite numbers
    are passed on and do not count.

    Args:
        weight: of the newest value, above 0 and up to 1 (which smooths nothing).
        seconds: instead of a weight, the time constant: the weight is then ``1 - exp(-t / seconds)``, where ``t`` is the time
            between the submissions of two frames, so that dropped frames and slow tasks do not change how fast values follow.
        tasks: which to smooth; None: all whose values can be averaged, which are regressions.

    Raises:
        OptionError: neither or both of ``weight`` and ``seconds`` are given, or a number is out of range.
    """

    def __init__(
        self, weight: float | None = None, *, seconds: float | None = None, tasks: Sequence[str] | None = None
    ) -> None:
        if (weight is None) == (seconds is None):
            raise OptionError("ExponentialSmoother takes weight= or seconds=, one of the two")
        if weight is not None and not 0 < weight <= 1:
            raise OptionError(f"weight={weight!r}: use a number above 0, up to 1")
        if seconds is not None and not 0 < seconds < math.inf:
            raise OptionError(f"seconds={seconds!r}: use a number above 0")
        self._weight = weight
        self._seconds = seconds
        self._tasks = _names(tasks)
        self._state: dict[Track, dict[str, _Smoothed]] = {}
        self._absent = Absent()

    def __call__(self, result: StreamResult) -> StreamResult:
        """Return the result with smoothed values.

        Raises:
            OptionError: ``tasks`` names one whose values cannot be averaged.
        """
        fitting = _fitting(result, self._tasks, lambda kind: kind.averages, "values that cannot be averaged")
        if result.identity is None:
            return result
        of = _state_of(self._state, result.identity, self._absent, result.submitted)
        smoothed = {name: self._smooth(result, prediction, of) for name, prediction in fitting.items()}
        return replace(result, predictions={**result.predictions, **smoothed})

    def forget(self, source: Hashable, key: Hashable = None) -> None:
        """Begin anew with the next value of a source and all objects in it, as after a cut to another scene, or of one object."""
        _forget(self._state, source, key)

    def _smooth(self, result: StreamResult, prediction: Prediction, of: dict[str, _Smoothed]) -> Prediction:
        before = of.get(prediction.task)
        if prediction.finite and (before is None or prediction.task in result.fresh):
            value = prediction.value
            if before is not None and np.shape(before.value) == np.shape(value):
                weight = self._weight_after(result.submitted - before.seconds)
                value = before.value + weight * (value - before.value)
                value = value.astype(prediction.value.dtype) if isinstance(value, np.ndarray) else float(value)
            before = of[prediction.task] = _Smoothed(value, result.submitted)
        if before is None or not prediction.finite:
            return prediction
        return replace(prediction, value=before.value)

    def _weight_after(self, seconds: float) -> float:
        if self._weight is not None:
            return self._weight
        return -math.expm1(-max(seconds, 0.0) / (self._seconds or 1.0))


class MajorityVote:
    """Gives the class that was chosen most often in the last frames of a source; of two that are level, the one chosen later.

    ``value`` and ``label`` are the winner's, ``probabilities`` stay those of this frame. A class that is not fresh votes once; one
    that is not known, since the network returned NaN, does not vote.

    Args:
        window: how many frames vote, 1 or more; of a task that is not computed for every frame, those for which it was.
        tasks: for which; None: all that choose one class.

    Raises:
        OptionError: ``window`` is too small.
    """

    def __init__(self, window: int = 5, *, tasks: Sequence[str] | None = None) -> None:
        if not isinstance(window, int) or window < 1:
            raise OptionError(f"window={window!r}: use a whole number of frames, 1 or more")
        self._window = window
        self._tasks = _names(tasks)
        self._votes: dict[Track, dict[str, deque[tuple[Any, str | None]]]] = {}
        self._absent = Absent()

    def __call__(self, result: StreamResult) -> StreamResult:
        """Return the result with the classes that won.

        Raises:
            OptionError: ``tasks`` names one that does not choose one class.
        """
        fitting = _fitting(result, self._tasks, lambda kind: kind.one_class, "no single class to vote for")
        if result.identity is None:
            return result
        of = _state_of(self._votes, result.identity, self._absent, result.submitted)
        decided = {name: self._decide(result, prediction, of) for name, prediction in fitting.items()}
        return replace(result, predictions={**result.predictions, **decided})

    def forget(self, source: Hashable, key: Hashable = None) -> None:
        """Begin anew with the next class of a source and all objects in it, as after a cut to another scene, or of one object."""
        _forget(self._votes, source, key)

    def _decide(
        self, result: StreamResult, prediction: Prediction, of: dict[str, deque[tuple[Any, str | None]]]
    ) -> Prediction:
        if not prediction.finite:
            return prediction
        votes = of.setdefault(prediction.task, deque(maxlen=self._window))
        if prediction.task in result.fresh or not votes:
            votes.append((prediction.value, prediction.label))
        counts = Counter(votes)
        most = max(counts.values())
        value, label = next(vote for vote in reversed(votes) if counts[vote] == most)
        return replace(prediction, value=value, label=label)


def _fitting(
    result: StreamResult, tasks: frozenset[str] | None, fits: Callable[[Kind], bool], otherwise: str
) -> dict[str, Prediction]:
    """Return the predictions that a hook is for; one that was named and does not fit is an error."""
    found = {}
    for name, prediction in result.predictions.items():
        if tasks is not None and name not in tasks:
            continue
        if fits(kind_of(prediction.kind)):
            found[name] = prediction
        elif tasks is not None:
            raise OptionError(
                f"task {name!r} is {prediction.kind}, with {otherwise}; leave it out of the hook's tasks="
            )
    return found


def _state_of(states: dict[Track, dict[str, T]], identity: Track, absent: Absent, now: float) -> dict[str, T]:
    """Return what is known by task, and forget objects that have gone."""
    for gone in absent.since(identity, now):
        states.pop(gone, None)
    return states.setdefault(identity, {})


def _forget(states: dict[Track, Any], source: Hashable, key: Hashable) -> None:
    for track in list(states):
        if track.source == source and key in (None, track.key):
            states.pop(track, None)


def _names(tasks: Sequence[str] | None) -> frozenset[str] | None:
    if isinstance(tasks, str):
        raise OptionError(f"tasks={tasks!r} is one string; pass a sequence of names, such as ({tasks!r},)")
    return None if tasks is None else frozenset(tasks)
