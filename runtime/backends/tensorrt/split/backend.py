"""A network in parts on TensorRT: one pass of the backbone, then the heads that a call asks for, on one stream."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.arrays import TensorSpec
from mtl_deploy.runtime.backends.tensorrt.backend import CONTEXTS, GRAPHS, TensorRTBackend, tensors_of
from mtl_deploy.runtime.backends.tensorrt.engine import LoadedEngine
from mtl_deploy.runtime.backends.tensorrt.kernel_cache import cache_path
from mtl_deploy.runtime.backends.tensorrt.library import Library
from mtl_deploy.runtime.backends.tensorrt.log import Messages
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.errors import BackendError, DeviceLostError, DeviceMemoryError, RunError

from .loaded import LoadedPart, LoadedParts

_LOGGER = logging.getLogger("mtl_deploy.loading")


@dataclass(frozen=True)
class PartEngine:
    """One engine of a network in parts.

    Attributes:
        read: returns the plan's bytes.
        record: what the manifest says about it.
        where: how errors call the file.
        tasks: those that need it.
        inputs: names of what it reads: the image, or what parts before it give.
        outputs: names of tasks, and of what parts after it read.
    """

    read: Callable[[], bytes]
    record: EngineRecord
    where: str
    tasks: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class TensorRTParts(TensorRTBackend):
    """Runs a network whose backbone and heads are engines of their own. Safe to call from several threads.

    A call's parts are enqueued one after another on one stream. They share activation memory, and hand over tensors by their
    addresses. A CUDA graph is recorded for each set of tasks, and holds all their parts.

    Args:
        parts: each after those whose outputs it reads.
        tasks: the only ones that will be needed; None: all. Parts that they do not need are not loaded.
        device: see :class:`TensorRTBackend`, as the others.
        contexts: likewise.
        graphs: likewise.
        runtime_cache: likewise; a file that is named gets each part's name appended.

    Raises:
        BackendError: an engine does not fit this machine, or the library refuses it.
        DeviceMemoryError: the GPU's memory is full.
    """

    def __init__(
        self,
        parts: Sequence[PartEngine],
        *,
        tasks: Sequence[str] | None = None,
        device: int | None = None,
        contexts: int = CONTEXTS,
        graphs: int = GRAPHS,
        runtime_cache: str | os.PathLike[str] | bool | None = None,
    ) -> None:
        self._engines = [part for part in parts if tasks is None or not set(tasks).isdisjoint(part.tasks)]
        self._tasks = [
            name
            for name in dict.fromkeys(task for part in parts for task in part.tasks)
            if tasks is None or name in tasks
        ]
        for part in self._engines[1:]:
            part.record.require_fit(device)
        first = self._engines[0]
        super().__init__(
            first.read,
            first.record,
            where=first.where,
            device=device,
            contexts=contexts,
            graphs=graphs,
            runtime_cache=runtime_cache,
        )
        self.details = f"{self.details}, in {len(self._engines)} parts"

    def _load(
        self,
        library: Library,
        read: Callable[[], bytes],  # noqa: ARG002 - of the first part
        record: EngineRecord,
        where: str,
        graphs: int,
        runtime_cache: str | os.PathLike[str] | bool | None,
    ) -> LoadedParts:
        messages = Messages()
        self._start(library, messages, record, where)
        self._found: list[
            LoadedPart
        ] = []  # of this object, which frees engines in their CUDA context if one is refused
        specs: dict[str, TensorSpec] = {}
        for part in self._engines:
            inputs = self._load_part(library, messages, part, graphs, runtime_cache)
            outputs = self._found[-1].loaded.outputs
            if {spec.name for spec in inputs} != {*part.inputs} or {spec.name for spec in outputs} != {*part.outputs}:
                raise BackendError(
                    f"{part.where}: its inputs and outputs are not those of the manifest; build it again with mtl-export"
                )
            for spec in (*inputs, *outputs):
                if specs.setdefault(spec.name, spec).dtype != spec.dtype:
                    raise BackendError(
                        f"{part.where}: {spec.name!r} is of another type than in the part that gives it; build both again"
                    )
        given = {name for part in self._engines for name in part.outputs}
        images = [spec for name, spec in specs.items() if name not in given]
        if len(images) != 1 or not given.issuperset(self._tasks):
            raise BackendError(f"{where}: the parts are not a whole network; build them again with mtl-export")
        inner = tuple(spec for name, spec in specs.items() if name in given and name not in self._tasks)
        tasks, parts = tuple(specs[name] for name in self._tasks), tuple(self._found)
        del self._found
        return LoadedParts(library, self._context, images[0], tasks, inner, parts, messages, graphs)

    def _load_part(
        self,
        library: Library,
        messages: Messages,
        part: PartEngine,
        graphs: int,
        runtime_cache: str | os.PathLike[str] | bool | None,
    ) -> tuple[TensorSpec, ...]:
        """Deserialize a part; return its inputs."""
        named = runtime_cache
        if runtime_cache is not None and not isinstance(runtime_cache, bool):
            named = f"{os.fspath(runtime_cache)}.{Path(part.where).stem}"
        cached = cache_path(part.where, named)
        engine, config = self._deserialize(library, messages, part.read, part.record, part.where, cached)
        inputs, outputs = tensors_of(library, engine)
        loaded = LoadedEngine(library, engine, self._context, inputs[0], outputs, messages, graphs, config)
        self._found.append(LoadedPart(loaded, part.tasks, part.inputs, part.outputs))
        return inputs


class TensorRTWithParts(TensorRTBackend):
    """Runs one engine for calls that ask for all tasks, and the parts of the same network for those that ask for some.

    The parts are loaded by the first such call, beside the engine. Where there is no memory for them, the engine goes on alone.

    Args:
        read: see :class:`TensorRTBackend`, as the others.
        record: likewise.
        make_parts: loads the parts.
        options: see :class:`TensorRTBackend`.
    """

    def __init__(
        self, read: Callable[[], bytes], record: EngineRecord, make_parts: Callable[[], TensorRTParts], **options: Any
    ) -> None:
        self._make_parts: Callable[[], TensorRTParts] | None = make_parts
        self._parts: TensorRTParts | None = None
        self._making = threading.Lock()
        super().__init__(read, record, **options)

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        into: Mapping[str, Any] | None = None,
        *,
        stream: int | None = None,
        on_device: bool = False,
    ) -> dict[str, Any]:
        """Run once; see :meth:`~mtl_deploy.runtime.backends.base.Backend.run`."""
        if len(outputs) < len(self.outputs) and (parts := self._loaded_parts()) is not None:
            try:
                return parts.run(inputs, outputs, into, stream=stream, on_device=on_device)
            except DeviceLostError:
                self._lost = True
                raise
        return super().run(inputs, outputs, into, stream=stream, on_device=on_device)

    def warm(self, outputs: Sequence[str]) -> None:
        """Load the parts now if these outputs are not all, so that the first :meth:`run` that asks for them need not."""
        if len(outputs) < len(self.outputs):
            self._loaded_parts()

    def _loaded_parts(self) -> TensorRTParts | None:
        if self._parts is None and self._make_parts is not None:
            with self._making:
                if self._parts is None and self._make_parts is not None and not self._closed:
                    try:
                        with self._context.active():
                            made = self._make_parts()
                    except (BackendError, DeviceMemoryError) as error:
                        _LOGGER.warning("%s; the whole engine computes all tasks of every call", error)
                        self._make_parts = None
                        return None
                    made._pinned = self._pinned  # what a caller got from this model
                    self._parts = made
        return self._parts

    def close(self) -> None:
        """Free contexts, memory and engines, once running calls have ended."""
        with self._making:
            parts, self._make_parts = self._parts, None
        if parts is not None:
            parts._lost = parts._lost or self._lost
            with suppress(RunError):
                parts.close()
        super().close()
