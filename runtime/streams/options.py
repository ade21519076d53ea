"""What a stream was asked for, checked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from mtl_deploy.runtime.errors import OptionError, TaskError

from .result import StreamResult

Drop = Literal["oldest", "newest", "wait"]
Hook = Callable[[StreamResult], StreamResult]
Hooks = Sequence[Hook] | Mapping[Hashable, Sequence[Hook]]


@dataclass(frozen=True)
class StreamOptions:
    """How a stream treats its frames.

    Attributes:
        tasks: those that it computes.
        every: by task, the frames of a source from one computation to the next; tasks that are not named: 1.
        queue: the most frames of one source that wait.
        drop: which frame goes where one more comes: the ``oldest`` that waits, the ``newest``, which is the one that comes, or
            none: whoever submits has to ``wait``.
        batch: the most frames that run together.
        results: the most results that wait to be collected; the stream pauses until then.
        hooks: get each result before it is delivered, one after the other: for all sources, by source, or by source and key
            for one object in its frames. Of a frame with boxes they get the result of each box.
        callback: gets each result, in the stream's own thread; None: results are collected from the stream.

    Raises:
        OptionError: a number is too small, or a word is unknown.
        TaskError: ``every`` names a task that is not computed.
    """

    tasks: tuple[str, ...]
    every: Mapping[str, int] = field(default_factory=dict)
    queue: int = 2
    drop: Drop = "oldest"
    batch: int = 1
    results: int = 8
    hooks: Hooks = ()
    callback: Callable[[StreamResult], object] | None = None

    def __post_init__(self) -> None:
        for name in ("queue", "batch", "results"):
            if not _is_count(number := getattr(self, name)):
                raise OptionError(f"{name}={number!r}: use a whole number, 1 or more")
        if self.drop not in get_args(Drop):
            raise OptionError(f"drop={self.drop!r}: use {', '.join(map(repr, get_args(Drop)))}")
        if self.callback is not None and not callable(self.callback):
            raise OptionError(f"callback={self.callback!r} cannot be called; pass a function that takes a result")
        if not isinstance(self.every, Mapping):
            raise OptionError(f"every={self.every!r}: name the tasks, as in {{{self.tasks[0]!r}: 10}}")
        for name, frames in self.every.items():
            if name not in self.tasks:
                raise TaskError(f"every= names {name!r}; this stream computes {', '.join(self.tasks)}")
            if not _is_count(frames):
                raise OptionError(f"every={{{name!r}: {frames!r}}}: use a whole number of frames, 1 or more")
        listed = self.hooks.values() if isinstance(self.hooks, Mapping) else [self.hooks]
        for hooks in listed:
            if not isinstance(hooks, Sequence) or not all(callable(hook) for hook in hooks):
                raise OptionError("hooks= takes a list of callables, or one list for each source in a dict")

    @property
    def usual_tasks(self) -> list[tuple[str, ...]]:
        """The sets of tasks that will be due for most frames: all of them, and those that are for every frame."""
        often = tuple(name for name in self.tasks if self.every.get(name, 1) == 1)
        return [self.tasks, often] if 0 < len(often) < len(self.tasks) else [self.tasks]

    def hooks_of(self, source: Hashable, key: Hashable = None) -> Sequence[Hook]:
        """Return the hooks of a source, or those that the object with this key has of its own, in order."""
        if not isinstance(self.hooks, Mapping):
            return self.hooks
        usual = self.hooks.get(source, ())
        return usual if key is None else self.hooks.get((source, key), usual)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
