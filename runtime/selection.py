"""Which artifact of a bundle runs here."""

from __future__ import annotations

from collections.abc import Sequence

from .bundle import Artifact, Bundle
from .errors import BackendError

BACKENDS = ("onnxruntime",)  # in order of preference


def select(
    bundle: Bundle,
    *,
    precision: str | None = None,
    backend: str | None = None,
    providers: Sequence[str] | None = None,
) -> Artifact:
    """Choose the shared artifact to run.

    Args:
        bundle: the bundle.
        precision: the one wanted; None: the fastest that the device computes natively.
        backend: the one wanted; None: any.
        providers: ONNX Runtime's; they tell the device.

    Raises:
        BackendError: the bundle has no such artifact; names those that it has.
    """
    shared = [artifact for artifact in bundle.manifest.artifacts if artifact.role == "shared"]
    fitting = [artifact for artifact in shared if artifact.backend in ((backend,) if backend else BACKENDS)]
    for wanted in (precision,) if precision else _preferred(providers):
        for artifact in fitting:
            if artifact.precision == wanted:
                return artifact
    asked = " with ".join(text for text in (precision or "a graph", backend and f"backend {backend}") if text)
    has = ", ".join(f"{artifact.path} ({artifact.precision}, {artifact.backend})" for artifact in shared) or "none"
    raise BackendError(f"{bundle.path} has no artifact for {asked}; it has {has}: choose one of them or export again")


def _preferred(providers: Sequence[str] | None) -> tuple[str, ...]:
    """Return precisions, the best first. Processors have no FP16 kernels, so there FP32 is faster."""
    if providers is None:
        from .onnxruntime_backend import default_providers

        providers = default_providers()
    on_gpu = bool(providers) and not providers[0].startswith("CPU")
    return ("fp16", "fp32") if on_gpu else ("fp32", "fp16")
