"""Which artifact of a bundle runs here: an engine where one fits this machine, else a graph; and which library runs the graph."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mtl_deploy.runtime.backends.openvino.library import is_installed
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, Artifact, Bundle

from .errors import BackendError, OptionError
from .lacking import lacking
from .measured.choice import INT8, Wanted, best
from .measured.here import TITLES, libraries
from .measured.record import read as read_measured

BACKENDS = ("tensorrt", "onnxruntime", "openvino")
PROVIDERS = ("CPU", "CUDA", "Tensorrt", "OpenVINO", "Dml", "CoreML", "Xnnpack")
"""Execution providers of ONNX Runtime, without their suffix, that completion offers; each build has some of them."""
_X86 = ("x86_64", "AMD64", "i686", "x86")


@dataclass(frozen=True)
class Choice:
    """An artifact to run.

    Attributes:
        artifact: the one chosen.
        misfit: why an engine that would have been preferred does not run here; None where there is none.
        backend: the name of the one that runs it.
        why: the reason for this backend, for people.
        notice: what is wrong with the bundle's measurements; None: nothing.
    """

    artifact: Artifact
    misfit: str | None = None
    backend: str = "onnxruntime"
    why: str = ""
    notice: str | None = None


@dataclass(frozen=True)
class Running:
    """How a graph is going to be run: measurements count only where it is as it was measured.

    Attributes:
        threads: of the backend; None: its own number.
        unlike: in what it is not as measured, for people; None: in nothing.
    """

    threads: int | None = None
    unlike: str | None = None


AS_MEASURED = Running()


def select(
    bundle: Bundle,
    *,
    precision: str | None = None,
    backend: str | None = None,
    providers: Sequence[str] | None = None,
    device: int | None = None,
    running: Running = AS_MEASURED,
    engines: bool = True,
) -> Choice:
    """Choose the shared artifact to run.

    On processors the bundle's measurements, where they were made on such a processor with these libraries, decide which of the
    graphs and backends that do what is asked for it is; without them :func:`graph_backend` does.

    Args:
        bundle: the bundle.
        precision: the wanted one, where ``int8`` means the style that fits the backend; None: the fastest that the device computes
            natively without a noticeable loss of accuracy.
        backend: the wanted one; None: an engine where one fits this machine, else what :func:`graph_backend` says. ``providers``
            select ONNX Runtime.
        providers: ONNX Runtime's; they name the device.
        device: CUDA's number of the GPU that engines would run on; None: 0.
        running: how a graph is going to be run.
        engines: whether an engine may be chosen.

    Raises:
        BackendError: the bundle has no such artifact (the message names those that it has); or an engine was asked for and does
            not fit this machine (the message says why).
    """
    precision = None if precision is None else precision.lower()
    check_backend(backend)
    misfit: str | None = None
    if engines and (backend == "tensorrt" or (backend is None and providers is None)):
        for engine in _shared(bundle, "tensorrt", (precision,) if precision else ("fp16", "fp32", "int8")):
            problem = _misfit(bundle, engine, device)
            if problem is None:
                return Choice(
                    engine, None, "tensorrt", "an engine that fits this machine" if backend is None else _ASKED
                )
            misfit = misfit or problem
    if backend != "tensorrt":
        try:
            in_gpu = backend != "openvino" and on_gpu(providers)
            for graph in _shared(bundle, "onnxruntime", _preferred(precision, gpu=in_gpu)):
                usual = Choice(graph, misfit, *graph_backend(graph.precision, backend, providers))
                if in_gpu:
                    return usual
                free = backend is None and providers is None
                alike = INT8 if precision == "int8" else (graph.precision,)
                return _measured(bundle, usual, alike, running, free=free)
        except BackendError as error:  # no ONNX Runtime
            if misfit is None:
                raise
            raise BackendError(f"{misfit}; and {error}") from error
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


def graph_choice(
    bundle: Bundle,
    graph: Artifact,
    backend: str | None,
    providers: Sequence[str] | None,
    running: Running = AS_MEASURED,
) -> Choice:
    """Choose what runs a certain graph of a bundle; the arguments are those of :func:`select`.

    Raises:
        BackendError: nothing is installed that runs graphs.
        OptionError: providers are ONNX Runtime's, and OpenVINO was asked for.
    """
    usual = Choice(graph, None, *graph_backend(graph.precision, backend, providers))
    if graph.role != "shared" or (backend != "openvino" and on_gpu(providers)):
        return usual
    return _measured(bundle, usual, (graph.precision,), running, free=backend is None and providers is None)


def _measured(bundle: Bundle, usual: Choice, alike: Sequence[str], running: Running, *, free: bool) -> Choice:
    """Return what the bundle's measurements say is fastest here; where they say nothing, the usual choice, with the reason.

    Args:
        bundle: the graphs.
        usual: the choice without measurements.
        alike: the precisions that do what is asked for.
        running: how the graph is going to be run.
        free: whether any backend may run it, not only the usual one.
    """
    reading = read_measured(bundle.path)
    if not reading.exists:
        return usual
    if running.unlike is not None:
        return replace(usual, why=f"{usual.why}; {MEASURED_FILE} does not count, {running.unlike}")
    if reading.problem is not None:
        return replace(usual, why=f"{usual.why}; {reading.problem}", notice=reading.problem)
    others = [one for one in _shared(bundle, "onnxruntime", alike) if one != usual.artifact]
    backends = tuple(libraries()) if free else (usual.backend,)
    found = best(reading, Wanted((usual.artifact, *others), usual.backend, backends, running.threads))
    if found.artifact == usual.artifact and found.backend == usual.backend:
        return replace(usual, why=f"{usual.why}; {found.why}")
    return replace(usual, artifact=found.artifact, backend=found.backend, why=found.why)


def what_loads(bundle: Bundle, threads: int | None = None) -> str:
    """Return which graph ``load`` takes on what, and why: a line for FP32, and one for INT8 where the bundle has any.

    Args:
        bundle: the graphs.
        threads: that ``load`` is called with.
    """
    lines = []
    for precision in ("fp32", "int8"):
        try:
            found = select(bundle, precision=precision, running=Running(threads))
        except BackendError:
            continue
        lines.append(
            f"precision={precision!r} takes {found.artifact.path} on {TITLES.get(found.backend, 'TensorRT')}: {found.why}\n"
        )
    return "".join(lines)


def _preferred(precision: str | None, *, gpu: bool) -> tuple[str, ...]:
    """Return the precisions of graphs that can be used, the best first.

    Processors have no FP16 kernels, so FP32 is faster there, and they run INT8 fastest in a style of their own. INT8 is never
    chosen unless asked for: it costs accuracy.
    """
    if precision not in (None, "int8"):
        return (precision,)
    if precision == "int8":
        return ("int8", "int8-cpu") if gpu else ("int8-cpu", "int8")
    return ("fp16", "fp32") if gpu else ("fp32", "fp16")


def on_gpu(providers: Sequence[str] | None) -> bool:
    """Return whether ONNX Runtime would run a graph on a GPU; where it is missing and OpenVINO is not, nothing does.

    Raises:
        BackendError: neither is installed.
    """
    if providers is None:
        from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

        try:
            providers = default_providers()
        except BackendError:
            if not is_installed():
                raise
            return False
    return bool(providers) and not providers[0].startswith("CPU")


def check_backend(backend: str | None) -> None:
    """Check a backend's name.

    Raises:
        BackendError: there is none of this name.
    """
    if backend not in (None, *BACKENDS):
        raise BackendError(f"backend {backend!r}: this release has {', '.join(BACKENDS)}")


_ASKED = "asked for"


def graph_backend(precision: str | None, backend: str | None, providers: Sequence[str] | None) -> tuple[str, str]:
    """Return the backend that runs a graph here, and why, for people.

    On x86 processors OpenVINO, where it is installed, runs our INT8 graphs for processors 1.2 to 1.9 times as fast as ONNX Runtime
    does (docs/int8.md says what was measured). In FP32 they are closer, and what is faster depends on the network.

    Args:
        precision: the graph's; None: not known.
        backend: ``onnxruntime`` or ``openvino``, if it was asked for.
        providers: ONNX Runtime's, if they were asked for.

    Raises:
        OptionError: providers are ONNX Runtime's, and OpenVINO was asked for.
    """
    if backend == "openvino" and providers is not None:
        raise OptionError("providers are ONNX Runtime's, and backend='openvino' was asked for; leave one of them out")
    if backend is not None:
        return backend, _ASKED
    if providers is not None:
        return "onnxruntime", "its providers are asked for"
    if not is_installed():
        return "onnxruntime", "OpenVINO, which may be faster here, is not installed"
    from mtl_deploy.runtime.backends.onnxruntime.backend import default_providers

    try:
        first = default_providers()[0]
    except BackendError:
        return "openvino", "ONNX Runtime is not installed"
    if not first.startswith("CPU"):
        return "onnxruntime", f"{first} runs it on the GPU"
    if precision == "int8-cpu" and platform.machine() in _X86:
        return "openvino", "it runs INT8 graphs faster on x86 processors"
    return (
        "onnxruntime",
        "the default on processors; unless it was measured to be faster, OpenVINO runs INT8 graphs alone without being asked for",
    )
