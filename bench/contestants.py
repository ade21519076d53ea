"""Who runs: one shared pass, and the separate models in each form that they can take, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtl_deploy.runtime.bundle import Artifact
from mtl_deploy.runtime.errors import BackendError, DeviceLostError, RunError, WorkError
from mtl_deploy.runtime.loading import load
from mtl_deploy.runtime.model import Model
from mtl_deploy.runtime.tensorrt_backend import GRAPHS, TensorRTBackend
from mtl_deploy.runtime.tensorrt_timing import Together

from .pair import Batch, Pair, Settings, instead

Outputs = Mapping[str, npt.NDArray[np.generic]]

FORMS = {"separate": "in sequence", "concurrent": "on a stream each", "one_graph": "as one CUDA graph"}
"""The forms of the separate side, in words. Graphs have the first alone."""
_RELATIVE = {"fp32": 1e-3, "fp16": 3e-2}  # what graphs' outputs may differ by, of a task's largest value
_RELATIVE_ENGINES = {"fp32": 2e-3, "fp16": 4e-2, "int8": 0.4}
"""Twice what mtl-export lets an engine differ by from PyTorch: both sides may."""
_TF32 = 2e-2  # for fp32 engines that may compute in TF32: 10 bits of mantissa


class Contestant(Protocol):
    """Computes all tasks of a batch. What one call costs is what is measured."""

    name: str
    details: str  # the library and the provider or device that run it

    def __call__(self, batch: Batch) -> Outputs:
        """Run all tasks on a ready batch, from host memory to host memory; raw outputs by task."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Side:
    """One side as an application runs it: its models one after the other, through the public runtime.

    Attributes:
        models: one for the shared side, one a task for the separate side.
    """

    def __init__(self, name: str, models: Sequence[Model]) -> None:
        self.name = name
        self.models = tuple(models)
        self.details = self.models[0].backend.details

    def __call__(self, batch: Batch) -> Outputs:
        """Run every model."""
        if len(self.models) == 1:
            return self.models[0](batch)
        outputs: dict[str, npt.NDArray[np.generic]] = {}
        for model in self.models:
            outputs |= model(batch)
        return outputs

    @property
    def engines(self) -> list[TensorRTBackend]:
        """The engines that run it; none where graphs do."""
        return [model.backend for model in self.models if isinstance(model.backend, TensorRTBackend)]

    @property
    def graphs_off(self) -> str | None:
        """Why engines are not launched as CUDA graphs; None where they are, or where there are none."""
        return next((engine.graphs_off for engine in self.engines if engine.graphs_off), None)

    def close(self) -> None:
        """Free the models."""
        for model in self.models:
            model.close()


class AtOnce:
    """The separate engines at work at once; the images go to the GPU once for all of them.

    Args:
        name: ``concurrent`` or ``one_graph``.
        side: the separate engines, which must stay open.
        batch: number of images.
        cuda_graphs: whether each engine is launched as a CUDA graph, where not all are one.
    """

    def __init__(self, name: str, side: Side, batch: int, *, cuda_graphs: bool) -> None:
        self.name = name
        self.details = side.details
        self._together = Together(side.engines, batch, whole=name == "one_graph", graphs=cuda_graphs)

    def __call__(self, batch: Batch) -> Outputs:
        """Run every engine."""
        return self._together(batch)

    def close(self) -> None:
        """Free what it holds beside the engines."""
        self._together.close()


def start(pair: Pair, name: str, settings: Settings) -> Side:
    """Load ``shared`` or ``separate``.

    Raises:
        BackendError: an engine is refused; says how to measure its graph.
    """
    with ExitStack() as stack:
        models = [stack.enter_context(_load(pair, artifact, settings)) for artifact in pair.side(name)]
        stack.pop_all()
        return Side(name, models)


def _load(pair: Pair, artifact: Artifact, settings: Settings) -> Model:
    try:
        return load(
            pair.bundle.path / artifact.path,
            providers=None if pair.engines else settings.providers,
            threads=settings.threads,
            spinning=settings.spinning,
            cuda_graphs=GRAPHS if settings.cuda_graphs else 0,
        )
    except BackendError as error:
        if not pair.engines:
            raise
        raise type(error)(f"{error}; {instead(pair.bundle, artifact)}") from error


def start_forms(separate: Side, batch: int, settings: Settings, notes: list[str]) -> list[AtOnce]:
    """Make the other forms of separate engines, where they are possible.

    Args:
        separate: the loaded engines.
        batch: number of images.
        settings: how they are run; without CUDA graphs there is no form of one graph.
        notes: told what is not possible, and why.

    Raises:
        DeviceLostError: the GPU's context is unusable.
    """
    forms: list[AtOnce] = []
    for name in ("concurrent", "one_graph") if settings.cuda_graphs else ("concurrent",):
        try:
            forms.append(AtOnce(name, separate, batch, cuda_graphs=settings.cuda_graphs))
        except DeviceLostError:  # noqa: PERF203 - three at most
            raise
        except RunError as error:  # memory, or an engine that cannot be captured: the other forms are measured
            notes.append(f"the separate engines {FORMS[name]} were not measured: {error}")
    return forms


def require_agreement(first: Contestant, second: Contestant, batch: Batch, pair: Pair) -> None:
    """Compare the contestants' outputs, since the speed of a wrong answer is of no interest.

    Raises:
        WorkError: names the task that differs, with the figures.
    """
    relative = _tolerance(pair)
    expected, found = first(batch), second(batch)
    for task, values in expected.items():
        allowed = relative * max(float(np.abs(values).max()), 1.0)
        error = float(np.abs(values.astype(np.float64) - found[task].astype(np.float64)).max())
        if not error <= allowed:
            form = f" ({FORMS[second.name]})" if second.name not in ("shared", "separate") else ""
            remedy = "build the engines again" if pair.engines else "export the bundle again"
            raise WorkError(
                f"task {task!r}: shared and separate{form} differ by {error:.3g} (allowed {allowed:.3g}), so they are not "
                f"compared for speed; {remedy}"
            )


def _tolerance(pair: Pair) -> float:
    precision = pair.shared.precision
    if not pair.engines:
        return _RELATIVE.get(precision, 0.1)
    if precision == "fp32" and pair.shared.details.get("settings", {}).get("tf32"):
        return _TF32
    return _RELATIVE_ENGINES.get(precision, 0.4)
