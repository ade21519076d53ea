"""What the simulated CUDA driver is made of: its objects, and how a call answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda.bindings import driver as real

Code = real.CUresult


class Failure(Exception):
    """A call that returns something else than success."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.code = getattr(Code, f"CUDA_ERROR_{name}")


class Handle:
    """What cuda-bindings gives for a handle: it becomes an integer when asked to, and equals none."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __int__(self) -> int:
        return self._value


@dataclass(eq=False)
class SimContext:
    handle: int
    device: int
    primary: bool
    alive: bool = True
    lost: str | None = None
    retained: int = 0
    legacy: SimStream | None = None


@dataclass(eq=False)
class SimStream:
    context: SimContext
    blocking: bool
    work: deque[Callable[[], None]] = field(default_factory=deque)
    enqueued: int = 0
    done: int = 0
    capture: SimCapture | None = None


@dataclass(eq=False)
class SimCapture:
    thread: int
    work: list[Callable[[], None]] = field(default_factory=list)
    valid: bool = True


@dataclass(eq=False)
class SimGraph:
    context: SimContext
    work: list[Callable[[], None]]
    in_flight: int = 0


@dataclass(eq=False)
class SimEvent:
    context: SimContext
    mark: tuple[SimStream, int] | None = None


@dataclass(eq=False)
class SimBlock:
    context: SimContext
    address: int
    size: int
    buffer: np.ndarray


def call(unsafe: bool = False, needs_context: bool = True) -> Callable[[Any], Any]:
    """Turn a method into a driver call: it returns a tuple with a code, is counted, and is allowed during a capture or not."""

    def decorate(method: Any) -> Any:
        name = method.__name__

        def wrapper(self: Any, *arguments: Any) -> tuple[Any, ...]:
            with self.lock:
                self.calls[name] += 1
                try:
                    self._inject(name)
                    if needs_context:
                        self.require_context()
                    if unsafe:
                        self._not_while_capturing()
                    found = method(self, *arguments)
                except Failure as failure:
                    return (failure.code, *self.nothing.get(name, ()))
                return (Code.CUDA_SUCCESS, *(found if isinstance(found, tuple) else () if found is None else (found,)))

        return wrapper

    return decorate


def tell(work: Any) -> None:
    """Tell work that wants to know that it was put on a stream, by itself or as a part of a graph."""
    queued = getattr(work, "queued", None)
    if queued is not None:
        queued()
