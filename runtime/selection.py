"""Which artifact of a bundle runs here: an engine where one fits this machine, else a graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle

from .errors import BackendError
from .lacking import lacking

BACKENDS = ("tensorrt", "onnxruntime")  # in order of preference
PROVIDERS = ("CPU", "CUDA", "Tensorrt", "OpenVINO", "Dml", "CoreML", "Xnnpack")
"""Execution providers of ONNX Runtime, without their suffix, that completion offers; each build has some of them."""


@dataclass(frozen=True)
class Choice:
    """An artifact to run.

    Attributes:
        artifact: the one chosen.
        misfit: why an engine that would have been preferred does not run here; None where there is none.
    """

    artifact: Artifact
    misfit: str | None = None


def select(
    bundle: Bundle,
    *,
    precision: str | None = None,
    backend: str | None = None,
    providers: Sequence[str] | None = None,
    device: int | None = None,
) -> Choice:
    """Choose the shared artifact to run.

    Args:
        bundle: the bundle.
        precision: the wanted one, where ``int8`` means the style that fits the backend; None: the fastest that the device computes
            natively without a noticeable loss of accuracy.
        backend: the wanted one; None: an engine where one fits this machine, else ONNX Runtime. ``providers`` select the latter.
        providers: ONNX Runtime's; they name the device.
        device: CUDA's number of the GPU that engines would run on; None: 0.

    Raises:
        BackendError: the bundle has no such artifact (the message names those that it has); or an engine was asked for and does
            not fit this machine (the message says why).
    """
    precision = None if precision is None else precision.lower()
    if backend not in (None, *BACKENDS):
        raise BackendError(f"backend {backend!r}: this release has {', '.join(BACKENDS)}")
    misfit: str | None = None
    if backend == "tensorrt" or (backend is None and providers is None):
        for engine in _shared(bundle, "tensorrt", (precision,) if precision else ("fp16", "fp32", "int8")):
            problem = _misfit(bundle, engine, device)
            if problem is None:
                return Choice(engine)
            misfit = misfit or problem
    if backend in (None, "onnxruntime"):
        try:
            preferred = _preferred(providers, precision)
        except BackendError as error:  # no ONNX Runtime
            if misfit is None:
                raise
            raise BackendError(f"{misfit}; and {error}") from error
        for graph in _shared(bundle, "onnxruntime", preferred):
            return Choice(graph, misfit)
    if misfit is not None:
        raise BackendError(misfit)
    raise BackendError(lacking(bundle, precision, backend))


def _misfit(bundle: Bundle, engine: Artifact, device: int | None) -> str | None:
    where = str(bundle.path / engine.path)
    try:
        EngineRecord.from_details(engine.details, where).require_fit(device)
    except BackendError as error:
        return f"{where}: {error}"
    return None


def _shared(bundle: Bundle, backend: str, preferred: Sequence[str]) -> Iterator[Artifact]:
    for wanted in preferred:
        for artifact in bundle.manifest.artifacts:
            if (artifact.role, artifact.backend, artifact.precision) == ("shared", backend, wanted):
                yield artifact


def _preferred(providers: Sequence[str] | None, precision: str | None) -> tuple[str, ...]:
    """Return the precisions of graphs that can be used, the best first.

    Processors have no FP16 kernels, so FP32 is faster there, and they run INT8 fastest in a style of their own. INT8 is never
    chosen unless asked for: it costs accuracy.
    """
    if precision not in (None, "int8"):
        return (precision,)
    if providers is None:
        from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

        providers = default_providers()
    on_gpu = bool(providers) and not providers[0].startswith("CPU")
    if precision == "int8":
        return ("int8", "int8-cpu") if on_gpu else ("int8-cpu", "int8")
    return ("fp16", "fp32") if on_gpu else ("fp32", "fp16")
