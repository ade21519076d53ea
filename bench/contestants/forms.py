"""The contestants of every bundle: the shared pass, the separate models in each form, and the shared pass for some tasks only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.backends.tensorrt.backend import GRAPHS, TensorRTBackend
from mtl_deploy.runtime.backends.tensorrt.together import Together
from mtl_deploy.runtime.bundle.manifest import Artifact
from mtl_deploy.runtime.errors import BackendError
from mtl_deploy.runtime.loading import load
from mtl_deploy.runtime.model import Model

from .contestant import Contestant, Outputs
from .pair import Batch
from .specs import CONCURRENT, ONE_GRAPH, SUBSET, Spec


class Side:
    """One side as an application runs it: its models one after the other, through the public runtime.

    Attributes:
        models: one for the shared side, one per task for the separate side.
        parts_ms: where there are several models, each one's own time in each call, by task; see :func:`take_parts`.
    """

    def __init__(self, name: str, models: Sequence[Model]) -> None:
        self.name = name
        self.models = tuple(models)
        self.details = self.models[0].backend.details
        self.parts_ms: dict[str, list[float]] = {_tasks_of(model): [] for model in self.models}

    def __call__(self, batch: Batch) -> Outputs:
        """Run every model."""
        if len(self.models) == 1:
            return self.models[0](batch)
        outputs: dict[str, npt.NDArray[np.generic]] = {}
        for model, times in zip(self.models, self.parts_ms.values(), strict=True):
            started = time.perf_counter_ns()
            outputs |= model(batch)
            times.append((time.perf_counter_ns() - started) / 1e6)
        return outputs

    @property
    def engines(self) -> list[TensorRTBackend]:
        """The engines that run it; none where graphs do."""
        return [model.backend for model in self.models if isinstance(model.backend, TensorRTBackend)]

    @property
    def graphs_off(self) -> str | None:
        """Why engines are not launched as CUDA graphs; None where they are, or where there are no engines."""
        return next((engine.graphs_off for engine in self.engines if engine.graphs_off), None)

    def close(self) -> None:
        """Free the models."""
        for model in self.models:
            model.close()


class Threads:
    """The separate graphs running at the same time, each in its own thread and session."""

    def __init__(self, name: str, side: Side) -> None:
        self.name = name
        self.details = side.details
        self._side = side
        self._pool = ThreadPoolExecutor(len(side.models), thread_name_prefix="mtl-bench")

    def __call__(self, batch: Batch) -> Outputs:
        """Run every model, and wait for all."""
        running = [self._pool.submit(model, batch) for model in self._side.models]
        outputs: dict[str, npt.NDArray[np.generic]] = {}
        for one in running:
            outputs |= one.result()
        return outputs

    def close(self) -> None:
        """End the threads and free the models."""
        self._pool.shutdown()
        self._side.close()


class AtOnce:
    """The separate engines running at the same time; the images are copied to the GPU once for all of them.

    What depends on the batch size is made at the first call with that size.

    Args:
        spec: of kind ``concurrent`` or ``one_graph``.
        side: the separate engines.
        owned: whether the engines are its own, to be closed with it.
    """

    def __init__(self, spec: Spec, side: Side, *, owned: bool) -> None:
        self.name = spec.name
        self.details = side.details
        self._spec, self._side, self._owned = spec, side, owned
        self._together: Together | None = None
        self._size = 0

    def __call__(self, batch: Batch) -> Outputs:
        """Run every engine.

        Raises:
            RunError: an engine cannot be captured, or memory is full.
        """
        if self._together is None or self._size != len(batch):
            self._release()
            graphs, whole = self._spec.settings.cuda_graphs, self._spec.kind == ONE_GRAPH
            self._together = Together(self._side.engines, len(batch), whole=whole, graphs=graphs)
            self._size = len(batch)
        return self._together(batch)

    def _release(self) -> None:
        if self._together is not None:
            self._together.close()
            self._together = None

    def close(self) -> None:
        """Free its memory, and the engines where they are its own."""
        self._release()
        if self._owned:
            self._side.close()


def start(spec: Spec, beside: Contestant | None = None) -> Contestant:
    """Start a contestant that runs a bundle's artifacts.

    Args:
        spec: which, and how.
        beside: the separate engines that are loaded in this process already, for their other forms; None: they are loaded.

    Raises:
        BackendError: an engine cannot be loaded here; the message says how to measure its graph instead.
    """
    if spec.engines and spec.kind in (CONCURRENT, ONE_GRAPH):
        if isinstance(beside, Side):
            return AtOnce(spec, beside, owned=False)
        return AtOnce(spec, _side(spec), owned=True)
    side = _side(spec)
    return Threads(spec.name, side) if spec.kind == CONCURRENT else side


def load_libraries(spec: Spec) -> None:
    """Load the library that runs the spec's artifacts, so that memory can be read before any model is loaded."""
    if spec.engines:
        return
    if spec.settings.backend == "openvino":
        from mtl_deploy.runtime.backends.openvino.library import start as start_openvino

        start_openvino()
    else:
        from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

        default_providers()


def call(contestant: Contestant, batch: Batch) -> dict[str, npt.NDArray[np.generic]]:
    """Call a contestant; for :meth:`Host.run <mtl_deploy.bench.contestants.hosts.Host.run>`.

    The arrays are copies, as a contestant may reuse its own.
    """
    return {task: np.array(values) for task, values in contestant(batch).items()}


def take_parts(contestant: Contestant) -> dict[str, list[float]]:
    """Return each separate model's own time in each call since the last time, in milliseconds; empty for other contestants."""
    if not isinstance(contestant, Side) or len(contestant.models) == 1:
        return {}
    taken = {task: list(times) for task, times in contestant.parts_ms.items()}
    for times in contestant.parts_ms.values():
        times.clear()
    return taken


def graphs_off(contestant: Contestant) -> str | None:
    """Return why engines are not launched as CUDA graphs; None where they are, or where there are no engines."""
    return contestant.graphs_off if isinstance(contestant, Side) else None


def activation_bytes(contestant: Contestant) -> int | None:
    """Return the bytes of activation memory that the engines report to need; None for graphs."""
    if not isinstance(contestant, Side) or not contestant.engines:
        return None
    return sum(engine.loaded.library.device_memory_size(engine.loaded.engine) for engine in contestant.engines)


def _side(spec: Spec) -> Side:
    with ExitStack() as stack:
        models = [stack.enter_context(_load(spec, artifact)) for artifact in spec.artifacts]
        stack.pop_all()
        return Side(spec.name, models)


def _load(spec: Spec, artifact: Artifact) -> Model:
    settings = spec.settings
    try:
        return load(
            spec.path / artifact.path,
            backend=None if spec.engines else settings.backend,
            providers=None if spec.engines else settings.providers,
            tasks=spec.tasks if spec.kind == SUBSET else None,
            threads=settings.threads,
            spinning=settings.spinning,
            mode=settings.mode,
            cuda_graphs=GRAPHS if settings.cuda_graphs else 0,
        )
    except BackendError as error:
        if not spec.engines:
            raise
        source = spec.path / str(artifact.details.get("source", ""))
        raise type(error)(f"{error}; measure its graph instead: mtl-bench {source}") from error


def _tasks_of(model: Model) -> str:
    return "+".join(task.name for task in model.tasks)
