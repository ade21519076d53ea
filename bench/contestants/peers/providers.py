"""ONNX Runtime's other execution providers as contestants: found, and tried without risk to the run."""

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
_IGNORED = ("Azure",)  # sends the images to a service instead of running here
KNOWN = (
    *("CPU", "CUDA", "Tensorrt", "NvTensorRTRTX", "MIGraphX", "ROCM", "OpenVINO", "Dnnl", "VitisAI", "QNN"),
    *("Nnapi", "VSINPU", "CoreML", "ACL", "ArmNN", "Dml", "Rknpu", "WebGpu", "Xnnpack", "CANN"),
)
"""Providers of ONNX Runtime's builds, from https://onnxruntime.ai/docs/execution-providers; without ``ExecutionProvider``."""
_TRIAL_S = 300.0  # TensorRT's provider builds its engine when it loads


def short(provider: str) -> str:
    """Return a provider's short name, as in contestants' names: ``CUDA`` for ``CUDAExecutionProvider``."""
    return provider.removesuffix(_SUFFIX)


def own_provider(settings: Settings) -> str:
    """Return the provider that runs the graphs of the run itself; empty where OpenVINO does.

    Raises:
        BackendError: ONNX Runtime is missing.
    """
    from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

    if settings.backend == "openvino":
        return ""
    return short((settings.providers or default_providers())[0])


def other_providers(settings: Settings) -> tuple[str, ...]:
    """Return the providers that this ONNX Runtime has besides :func:`own_provider`.

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
        bundle: the bundle that holds it.
        shared: the artifact that the run measures; where it is an engine, the graph that it was built from is run.
        provider: its short name, such as ``CUDA``.
        settings: the run's; its providers do not count.
        isolated: whether it will live in a process of its own. Otherwise a process first tries whether the provider loads, as
            some providers take their process down.

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
        settings=replace(settings, providers=(provider,), backend="onnxruntime"),
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
        BackendError: the provider is not available, did not start, or ended the process that tried it; the message says which.
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
