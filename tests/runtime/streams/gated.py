"""What lets a test hold a stream at a place of its choice: no test rests on how long something takes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mtl_deploy.runtime import Model, RunError
from mtl_deploy.runtime import load as load_model
from mtl_deploy.runtime.backends.base import Backend

WAIT = 60.0  # seconds after which something is taken to hang
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


class Gated:
    """A real backend; each call tells that it has begun, and can be held."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name, self.details, self.metadata = inner.name, inner.details, inner.metadata
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.calls: list[tuple[int, tuple[str, ...]]] = []  # batch and tasks
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()
        self.failing: Callable[[int], BaseException | None] = lambda call: None

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str], *rest: Any, **options: Any) -> dict[str, Any]:
        self.calls.append((len(inputs["image"]), tuple(outputs)))
        number = len(self.calls) - 1
        self.begun.release()
        if not self.open.wait(WAIT):
            raise RunError("the test has not opened the gate")
        if (error := self.failing(number)) is not None:
            raise error
        return self._inner.run(inputs, outputs, *rest, **options)

    def close(self) -> None:
        self._inner.close()


@contextmanager
def gated(bundle: Path) -> Iterator[tuple[Model, Gated]]:
    """Yield a model on a gated backend."""
    with load_model(bundle, threads=1) as loaded:
        gate = Gated(loaded.backend)
        try:
            yield Model(gate, loaded.signature, loaded.artifact), gate
        finally:
            gate.open.set()


class Watched(os.PathLike[str]):
    """An image file that tells when it is opened, which is when its preparation begins."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seen = threading.Event()

    def __fspath__(self) -> str:
        self.seen.set()
        return str(self._path)
