"""OpenVINO as a contestant, without the runtime around it: the bundle's graph on another library for CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.bench.contestants.pair import Batch, Settings
from mtl_deploy.bench.contestants.specs import Spec
from mtl_deploy.runtime.backends.failures import last_line
from mtl_deploy.runtime.backends.openvino.library import import_openvino
from mtl_deploy.runtime.backends.openvino.library import start as start_openvino
from mtl_deploy.runtime.bundle.manifest import Artifact, Bundle, open_bundle
from mtl_deploy.runtime.errors import BackendError, BundleError, RunError

NAME = "openvino"
STARTER = "mtl_deploy.bench.contestants.peers.openvino:start"
_AS_MEASURED = ("fp32", "int8", "int8-cpu")  # precisions that it computes in on a CPU; FP16 graphs would run in FP32


def openvino_spec(bundle: Bundle, shared: Artifact, settings: Settings) -> Spec:
    """Return the contestant: the shared graph of the run's precision where OpenVINO computes in it, otherwise the FP32 one.

    Args:
        bundle: the bundle that holds the graphs.
        shared: the artifact that the run measures.
        settings: the run's; OpenVINO gets the same number of threads.

    Raises:
        BundleError: the bundle has no such graph.
    """
    graph = _graph(bundle, shared)
    suffix = "" if graph.precision == shared.precision else f"@{graph.precision}"
    return Spec(
        name=NAME + suffix,
        title="OpenVINO, shared network" + (f", {graph.precision}" if suffix else ""),
        kind=NAME,
        path=bundle.path,
        artifacts=(graph,),
        tasks=graph.tasks,
        precision=graph.precision,
        settings=settings,
        starter=STARTER,
    )


def _graph(bundle: Bundle, shared: Artifact) -> Artifact:
    graphs = {
        artifact.precision: artifact
        for artifact in bundle.manifest.artifacts
        if (artifact.role, artifact.backend) == ("shared", "onnxruntime")
    }
    wanted = shared.precision if shared.precision in _AS_MEASURED and shared.precision in graphs else "fp32"
    if wanted not in graphs:
        raise BundleError(f"{bundle.path} has no shared {wanted} graph for OpenVINO; export the network again")
    return graphs[wanted]


class OpenVino:
    """A graph on OpenVINO's CPU device, compiled for each batch size at the first call with that size.

    Args:
        name: the contestant's name.
        core: OpenVINO's ``Core``.
        content: an ``.onnx`` file.
        where: its name in errors.
        tasks: its outputs.
        settings: the run's.
        version: OpenVINO's version.

    Raises:
        BundleError: OpenVINO cannot read the graph.
    """

    def __init__(
        self, name: str, core: Any, content: bytes, where: str, tasks: tuple[str, ...], settings: Settings, version: str
    ) -> None:
        self.name = name
        self.details = f"OpenVINO {version}, CPU"
        self._core, self._where, self._tasks, self._version = core, where, tasks, version
        # LATENCY: one call at a time on all threads. Without f32 it computes in BF16 or FP16 where the CPU can
        self._config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if settings.threads is not None:
            self._config["INFERENCE_NUM_THREADS"] = str(settings.threads)
        self._requests: dict[int, tuple[Any, list[Any]]] = {}
        try:
            self._model = core.read_model(content)
        except Exception as error:  # its exceptions have no base class of their own
            raise BundleError(
                f"{where}: OpenVINO {version} cannot read it ({last_line(error)}); leave it out"
            ) from error

    def __call__(self, batch: Batch) -> Mapping[str, npt.NDArray[np.generic]]:
        """Run the graph; outputs by task.

        Raises:
            BackendError: OpenVINO cannot compile the graph for a batch of this size.
            RunError: it failed while running.
        """
        request, outputs = self._requests.get(len(batch)) or self._compiled(batch)
        try:
            request.infer([batch], share_inputs=True, share_outputs=True)
        except Exception as error:
            raise RunError(f"OpenVINO failed: {last_line(error)}") from error
        # a request's next call overwrites what it returned; ONNX Runtime's does not
        return {task: np.array(tensor.data) for task, tensor in zip(self._tasks, outputs, strict=True)}

    def close(self) -> None:
        """Free the compiled graphs."""
        self._requests = {}

    def _compiled(self, batch: Batch) -> tuple[Any, list[Any]]:
        try:
            model = self._model.clone()
            model.reshape(list(batch.shape))
            compiled = self._core.compile_model(model, "CPU", self._config)
            request = compiled.create_infer_request()
            found = request, [request.get_tensor(compiled.output(task)) for task in self._tasks]
        except Exception as error:
            raise BackendError(
                f"{self._where}: OpenVINO {self._version} cannot compile it for a batch of {len(batch)} ({last_line(error)})"
            ) from error
        self._requests[len(batch)] = found
        return found


def start(spec: Spec) -> OpenVino:
    """Start the contestant.

    Raises:
        BackendError: OpenVINO is missing, broken or too old.
        BundleError: the file was changed, or OpenVINO cannot read it.
    """
    import_openvino()
    library = start_openvino()
    artifact = spec.artifacts[0]
    content = open_bundle(spec.path).read(artifact)
    where = str(spec.path / artifact.path)
    return OpenVino(spec.name, library.core, content, where, spec.tasks, spec.settings, library.version)


def load_libraries(spec: Spec) -> None:  # noqa: ARG001 - the same for every spec
    """Import OpenVINO, so that memory can be read before any graph is loaded."""
    start_openvino()
