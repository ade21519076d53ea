"""Measuring a bundle's graphs on each backend of this processor, in turn, once their answers have been compared."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.backends.openvino.library import INSTALL
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.errors import BackendError, BundleError, DeviceMemoryError, MtlError
from mtl_deploy.runtime.files.dates import created

from .answers import Judge, images_for
from .choice import INT8
from .here import TITLES, libraries, processor
from .record import Candidate, Run

SECONDS = 2.5
"""Of timing, where graphs are fast enough for that."""
_MOST, _LEAST = 50, 6  # rounds
_CALLS = 3  # of a candidate in a row
_LONG_MS = 500.0  # of a round: with longer ones, a turn is one call
_HOPELESS = 3
_SEED = 0
Say = Callable[[str], None]


def measure(
    bundle: Bundle, *, threads: int | None = None, backends: Collection[str] = tuple(TITLES), say: Say = lambda _: None
) -> Run:
    """Measure the shared FP32 and INT8 graphs, each on each backend that is installed.

    All run in this process, as ``load`` runs them, one after the other in rounds of random order, so that what else the machine
    does falls on all alike. ONNX Runtime's threads spin during a call, and rest after it.

    Args:
        bundle: the graphs.
        threads: of each backend; None: its own number.
        backends: those to measure, where they are installed.
        say: is called with what is being done.

    Returns:
        The run; a candidate that does not run, or whose answers are wrong, has its fault.

    Raises:
        BundleError: a file is missing or damaged, or there is no graph to measure.
        BackendError: no library that runs graphs is installed.
    """
    graphs, versions = _graphs(bundle), libraries(backends)
    if not graphs:
        raise BundleError(f"{bundle.path} has no shared graphs in FP32 or INT8 to measure")
    if not versions:
        raise BackendError(f"nothing that runs graphs on a processor is installed: {INSTALL}, or 'mtl-deploy[runtime]'")
    candidates: list[Candidate] = []
    with ExitStack() as stack:
        running: dict[int, Backend] = {}
        for artifact in graphs:
            content = bundle.read(artifact)
            for backend in versions:
                one = Candidate(artifact.path, artifact.sha256, artifact.precision, backend)
                say(f"starting {one}")
                try:
                    started = _start(backend, content, str(bundle.path / artifact.path), threads)
                    running[len(candidates)] = stack.enter_context(closing(started))
                except MtlError as error:
                    one = replace(one, fault=_short(error))
                candidates.append(one)
        batch = max((artifact.batch_min for artifact in graphs), default=1)
        images = images_for(bundle, batch)
        judge = Judge(bundle, images, batch)
        for number, backend_here in list(running.items()):
            say(f"comparing answers of {candidates[number]}")
            try:
                fault = judge.fault(candidates[number], backend_here)
            except MtlError as error:
                fault = _short(error)
                del running[number]
            candidates[number] = replace(candidates[number], fault=fault)
        turns = {
            number: _Turn(
                backend_here, [spec.name for spec in backend_here.outputs], {INPUT_NAME: images.tensor[:batch]}
            )
            for number, backend_here in running.items()
        }
        looks = {number: turn.take(_CALLS) for number, turn in turns.items()}
        for number in [number for number in turns if _hopeless(number, candidates, looks)]:
            fault = f"{looks[number]:.1f} ms at first sight, over {_HOPELESS} times FP32's"
            candidates[number] = replace(candidates[number], fault=candidates[number].fault or fault)
            del turns[number]
        times = _rounds(turns, {number: looks[number] for number in turns}, say)
    for number, found in times.items():
        candidates[number] = replace(candidates[number], milliseconds=tuple(found))
    return Run(processor(), versions, threads, batch, created(), tuple(candidates))


def _graphs(bundle: Bundle) -> list[Artifact]:
    shared = [one for one in bundle.manifest.artifacts if (one.role, one.backend) == ("shared", "onnxruntime")]
    order = ("fp32", *INT8)
    return sorted((one for one in shared if one.precision in order), key=lambda one: order.index(one.precision))


def _start(backend: str, content: bytes, where: str, threads: int | None) -> Backend:
    if backend == "openvino":
        from mtl_deploy.runtime.backends.openvino.backend import OpenVinoBackend

        return OpenVinoBackend(lambda: content, where=where, threads=threads, requests=1)
    from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(lambda: content, where=where, providers=["CPU"], threads=threads, rests=True)


def _short(error: MtlError) -> str:
    words = "it has no memory here" if isinstance(error, DeviceMemoryError) else "it does not run here"
    return f"{words} ({' '.join(visible(str(error)).split())[:500]})"


@dataclass
class _Turn:
    """How one candidate takes its turn: the quickest of a few calls, as what else the machine does only makes calls longer."""

    backend: Backend
    names: Sequence[str]
    inputs: Mapping[str, Array]

    def call(self) -> float:
        started = time.perf_counter()
        self.backend.run(self.inputs, self.names)
        return 1000 * (time.perf_counter() - started)

    def take(self, calls: int) -> float:
        """Return milliseconds; where there are several calls, one more before them wakes threads, and what others cached goes."""
        if calls > 1:
            self.call()
        return min(self.call() for _ in range(calls))


def _rounds(turns: dict[int, _Turn], looks: Mapping[int, float], say: Say) -> dict[int, list[float]]:
    """Return the milliseconds of each candidate, one figure for each round."""
    found: dict[int, list[float]] = {number: [] for number in turns}
    calls = _CALLS if sum(looks.values()) < _LONG_MS else 1
    order, rng = list(turns), random.Random(_SEED)
    started = time.perf_counter()
    for number in range(_MOST if turns else 0):
        if number >= _LEAST and time.perf_counter() - started > SECONDS:
            break
        say(f"round {number + 1}")
        rng.shuffle(order)
        for one in order:
            found[one].append(turns[one].take(calls))
    return found


def _hopeless(number: int, candidates: Sequence[Candidate], looks: Mapping[int, float]) -> bool:
    """Return whether an INT8 graph is so much slower than FP32 on its backend that rounds are vain; the faster one is kept."""
    one, took = candidates[number], looks[number]
    beside = [n for n in looks if n != number and candidates[n].backend == one.backend]
    full = [looks[n] for n in beside if candidates[n].precision == "fp32"]
    others = [looks[n] for n in beside if candidates[n].precision != "fp32"]
    return one.precision != "fp32" and bool(full and others) and took > _HOPELESS * full[0] and took > min(others)
