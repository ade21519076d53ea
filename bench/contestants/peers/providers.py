"""ONNX Runtime's other providers as contestants: found and tried without risk to the run."""

from __future__ import annotations

import sys
from dataclasses import replace

from mtl_deploy.bench.contestants.contestant import Contestant
from mtl_deploy.bench.contestants.forms import load_libraries as load_libraries  # the same libraries: ONNX Runtime
from mtl_deploy.bench.contestants.forms import start as start_graph
from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.contestants.processes import run
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle
from mtl_deploy.runtime.errors import BackendError, BundleError

PREFIX = "onnxruntime:"
STARTER = "mtl_deploy.bench.contestants.peers.providers:start"
_SUFFIX = "ExecutionProvider"
_IGNORED = ("Azure",)  # sends the images to a service: no execution on this machine
KNOWN = (
    *("CPU", "CUDA", "Tensorrt", "NvTensorRTRTX", "MIGraphX", "ROCM", "OpenVINO", "Dnnl", "VitisAI", "QNN"),
    *("Nnapi", "VSINPU", "CoreML", "ACL", "ArmNN", "Dml", "Rknpu", "WebGpu", "Xnnpack", "CANN"),
)
"""What ONNX Runtime's builds can have, of https://onnxruntime.ai/docs/execution-providers; without ``ExecutionProvider``."""
_TRIAL_S = 300.0  # TensorRT's provider builds its engine when it loads


def short(provider: str) -> str:
    """Return a provider's name as the contestants' keys have it: ``CUDA`` for ``CUDAExecutionProvider``."""
    return provider.removesuffix(_SUFFIX)


def own_provider(settings: Settings) -> str:
    """Return the provider that graphs of the run itself are run with.

    Raises:
        BackendError: ONNX Runtime is missing.
    """
    from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

    return short((settings.providers or default_providers())[0])


def other_providers(settings: Settings) -> tuple[str, ...]:
    """Return what this ONNX Runtime has beside :func:`own_provider`.

    Raises:
        BackendError: ONNX Runtime is missing.
    """
    from mtl_deploy.runtime.backends.onnxruntime.backend import available_providers

    ignored = (own_provider(settings), *_IGNORED)
    names = map(short, available_providers())
    return tuple(name for name in names if name not in ignored)


def provider_spec(
    bundle: Bundle, shared: Artifact, provider: str, settings: Settings, *, isolated: bool = True
) -> Spec:
    """Return the contestant that runs the run's shared graph on one of ONNX Runtime's providers.

    Args:
        bundle: that holds it.
        shared: what the run measures; of an engine, the graph that it was built from runs.
        provider: ``CUDA``, say.
        settings: of the run, but for its providers.
        isolated: whether it will live in a process of its own. Otherwise another process first shows that the provider loads:
            some take their process down.

    Raises:
        BundleError: the bundle has no graph of the run's precision.
    """
    graph = _graph(bundle, shared)
    return Spec(
        name=PREFIX + provider,
        title=f"ONNX Runtime's {provider}, shared network",
        kind="provider",
        path=bundle.path,
        artifacts=(graph,),
        tasks=graph.tasks,
        precision=graph.precision,
        settings=replace(settings, providers=(provider,)),
        starter=STARTER,
        options={"trial": not isolated},
    )


def _graph(bundle: Bundle, shared: Artifact) -> Artifact:
    if shared.backend == "onnxruntime":
        return shared
    for artifact in bundle.manifest.artifacts:
        if artifact.path == shared.details.get("source"):
            return artifact
    raise BundleError(f"{bundle.path} has no graph of {shared.path} for ONNX Runtime; measure without --peers")


def start(spec: Spec) -> Contestant:
    """Start the contestant.

    Raises:
        BackendError: the provider is not available, did not start, or ended the process that tried it; says which.
    """
    if spec.options.get("trial") and (reason := trial(spec)) is not None:
        raise BackendError(reason)
    return start_graph(spec)


def trial(spec: Spec) -> str | None:
    """Load a spec's graph in a process of its own; return why that failed, or None."""
    provider = spec.settings.providers[0] if spec.settings.providers else "CPU"
    ended = run(__name__, [str(spec.path / spec.artifacts[0].path), provider], timeout_s=_TRIAL_S)
    if ended.succeeded:
        return None
    return ended.own_words or f"provider {provider!r} did not load the graph: {ended.reason}"


def main() -> None:
    """Load an artifact with a provider.

    Raises:
        MtlError: it does not load.
    """
    path, provider = sys.argv[1:]
    from mtl_deploy.runtime.loading import load

    load(path, providers=(provider,)).close()
