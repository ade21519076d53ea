"""Contestants that processes of their own start, for tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from mtl_deploy.runtime.errors import BackendError, RunError


class Echo:
    """Gives the batch back as every task's output."""

    details = "an echo"

    def __init__(self, spec: Any) -> None:
        self.name = spec.name
        self.tasks = spec.tasks
        self.seen: list[Any] = []

    def __call__(self, batch: Any) -> dict[str, Any]:
        self.seen.append(batch)
        return {task: batch.reshape(len(batch), -1)[:, :1].astype(np.float32) for task in self.tasks}

    def close(self) -> None:
        pass


def echo(spec: Any) -> Echo:
    return Echo(spec)


def refusing(spec: Any) -> Echo:
    raise BackendError("no such device; use another")


def broken(spec: Any) -> Echo:
    raise ZeroDivisionError("one over nothing")


def dying(spec: Any) -> Echo:
    print("a library says its last words", file=sys.stderr)
    os._exit(7)


def number(contestant: Any) -> int:
    return os.getpid()


def seen(contestant: Any) -> tuple[int, bool]:
    """How many batches came, and whether all were one and the same array."""
    return len(contestant.seen), all(one is contestant.seen[0] for one in contestant.seen)


def fail(contestant: Any, kind: str) -> None:
    if kind == "ours":
        raise RunError("the device stumbled")
    if kind == "other":
        raise ZeroDivisionError("one over nothing")
    print("segmentation fault, as if", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted(contestant: Any) -> str:
    """Send oneself Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    return "still here"


def unpicklable(contestant: Any) -> Any:
    return lambda: None


def sleep(contestant: Any, seconds: float) -> None:
    time.sleep(seconds)
