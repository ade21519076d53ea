"""Loading a bundle, or one file of it: which artifact runs here, on which backend."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.backends.specs import check_specs
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Bundle, manifest_state
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.signing import VerifyKey, require_signed
from mtl_deploy.runtime.images.camera import known_layout

from .errors import BackendError, BundleError, FallbackWarning, MtlWarning, OptionError, UncheckedWarning
from .finding import Found, find
from .in_parts import engine_with_parts, graph_parts, parts_of
from .load_options import check_load_options
from .model import Model, unique_names
from .selection import Running, select

_LOGGER = logging.getLogger("mtl_deploy.loading")
_ATTEMPTS = 100  # while a bundle keeps being replaced


def load(
    path: str | os.PathLike[str],
    *,
    precision: str | None = None,
    backend: str | None = None,
    providers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    threads: int | None = None,
    spinning: bool = True,
    device: int | str | None = None,
    contexts: int = 4,
    cuda_graphs: int = 8,
    runtime_cache: str | os.PathLike[str] | bool | None = None,
    verify_key: VerifyKey | None = None,
    layout: str | None = None,
    split: bool | None = None,
    mode: str = "latency",
    arithmetic: str | None = None,
) -> Model:
    """Load a bundle, or one graph or engine.

    A file of a bundle is read only if its SHA-256 is the manifest's; with ``verify_key``, only if the manifest is also signed.

    Args:
        path: a bundle (its folder or its ``manifest.json``), a graph or engine in one (such as ``separate/age.onnx``), or a lone
            ``.onnx`` that ``mtl-export`` wrote.
        precision: ``fp32``, ``fp16``, ``int8`` (in the backend's style) or ``int8-cpu``; None: fp16 on a GPU if the bundle has it,
            otherwise fp32 (processors compute FP16 graphs in FP32, with conversions on top).
        backend: ``tensorrt``, ``onnxruntime`` or ``openvino``; None: an engine if one fits this machine, otherwise the graph, with
            a :class:`FallbackWarning` that says why no engine fits. On processors the graph runs on what was measured to be
            fastest, if the bundle was measured on such a processor (``mtl-calibrate``, ``mtl-bench --record``); otherwise on ONNX
            Runtime, or, if it is INT8, the processor x86 and OpenVINO installed, on OpenVINO. :attr:`Model.why` gives the reason.
        providers: ONNX Runtime's execution providers, in order of preference (``CUDA`` or ``CUDAExecutionProvider``); None: CUDA
            if the machine has a device, then CPU. Naming any selects ONNX Runtime.
        tasks: the tasks that will be used; None: all. ONNX Runtime and OpenVINO never compute the others.
        threads: threads that compute a graph: ONNX Runtime's inside an operator, or all of OpenVINO's; None: one per physical core.
        spinning: whether ONNX Runtime's idle threads spin: lower latency, more load. OpenVINO's do not.
        device: CUDA's number of the GPU for an engine; None: the one of the thread's current CUDA context, else 0. OpenVINO runs
            graphs on ``"CPU"`` only.
        contexts: the most execution contexts of an engine, or infer requests of OpenVINO: calls from more threads wait.
        cuda_graphs: CUDA graphs that a context of an engine keeps, one per batch size and set of buffers; 0 turns them off.
        runtime_cache: TensorRT-RTX's file of compiled kernels, or OpenVINO's folder of compiled graphs; None: beside the engine,
            and ``.cache`` in the bundle, or none if ``verify_key`` is given, because these files are not signed; False: none.
        verify_key: run only what the holder of this key signed (``mtl-export --sign``): an Ed25519 public key, as a PEM file, PEM
            in bytes, or its 32 bytes. None: no signature is required.
        layout: the colours of the arrays that the application passes: ``rgb`` (None means that too), ``bgr``, as OpenCV reads
            images, or ``gray``. It is independent of the network's own order, which the bundle knows. A call may say otherwise. A
            bundle that was exported for frames of a camera (``mtl-export --source``) knows their layout; None is that.
        split: run the network in parts, for bundles of ``mtl-export --split``: the backbone once, then the heads that a call asks
            for, without copies in between. None: with an engine, the parts run if a call asks for some of the tasks, and the whole
            engine if it asks for all; graphs are cut and run without parts. Parts of graphs run on ONNX Runtime.
        mode: for graphs on processors: ``latency``, each call on all threads, or ``throughput``, several calls at once on few
            threads each, for applications that call from several threads. Engines run ``contexts`` calls at once.
        arithmetic: the type in which OpenVINO computes what is not INT8: ``bf16``, or ``f16``, if the processor can; None: ``f32``.

    Raises:
        BundleError: not a bundle or graph of this package, or one of another release; :class:`IntegrityError` for a changed file,
            or one that is not signed as ``verify_key`` demands.
        BackendError: nothing installed here can run it as requested.
        TaskError: a task does not exist.
        OptionError: there is no such layout or mode, the bundle takes frames of another layout, there are no parts to run, or an
            option is another backend's.
        DeviceMemoryError: the memory of the GPU, or of the machine, is full.
    """
    known_layout(layout)
    options: dict[str, Any] = {
        "precision": precision,
        "backend": backend,
        "providers": providers,
        "tasks": tasks,
        "threads": threads,
        "spinning": spinning,
        "device": device,
        "contexts": contexts,
        "cuda_graphs": cuda_graphs,
        "runtime_cache": runtime_cache,
        "verify_key": verify_key,
        "layout": layout,
        "split": split,
        "mode": mode,
        "arithmetic": arithmetic,
    }
    check_load_options(options)
    again = (_load_again, (str(Path(path).absolute()), options))
    return _of_one_bundle(path, lambda: _load(path, again=again, **options))


def _load_again(path: str, options: Mapping[str, Any]) -> Model:
    """Load as :func:`load` did in the process that pickled a model."""
    return load(path, **options)


def _of_one_bundle(path: str | os.PathLike[str], read: Callable[[], Model]) -> Model:
    """Return the result of ``read``; repeat it if the bundle was replaced meanwhile: a manifest and its files belong together."""
    for _ in range(_ATTEMPTS):
        state = manifest_state(path)
        try:
            return read()
        except BundleError:
            if manifest_state(path) == state:
                raise
    return read()


def _load(
    path: str | os.PathLike[str],
    *,
    precision: str | None,
    backend: str | None,
    providers: Sequence[str] | None,
    tasks: Sequence[str] | None,
    threads: int | None,
    spinning: bool,
    device: int | str | None,
    contexts: int,
    cuda_graphs: int,
    runtime_cache: str | os.PathLike[str] | bool | None,
    verify_key: VerifyKey | None,
    layout: str | None,
    split: bool | None,
    mode: str,
    arithmetic: str | None,
    again: tuple[Callable[..., Any], tuple[Any, ...]],
) -> Model:
    gpu = _gpu(device, backend)
    running = Running(threads, _unlike(verify_key, mode, arithmetic, split))
    found = find(Path(path), precision, backend, providers, gpu, running)
    if found.notice is not None:
        _LOGGER.warning("%s", found.notice)
        warnings.warn(found.notice, MtlWarning, stacklevel=5)
    if verify_key is not None:
        require_signed(found.around, verify_key, found.where)
        runtime_cache = False if runtime_cache is None else runtime_cache
    outputs = None if tasks is None else unique_names(tasks)
    runner: Backend | None = None
    if found.runner == "tensorrt" and found.artifact is not None:
        from mtl_deploy.runtime.backends.tensorrt.backend import TensorRTBackend

        if mode != "latency" or arithmetic is not None:
            option = "mode=" if mode != "latency" else "arithmetic="
            raise OptionError(f"{option} is for graphs on processors, and {found.where} is an engine; leave it out")
        try:
            record = EngineRecord.from_details(found.artifact.details, found.where)
            settings: dict[str, Any] = {"device": gpu, "contexts": contexts, "graphs": cuda_graphs}
            settings["runtime_cache"] = runtime_cache
            if found.around is not None and (parts := parts_of(found.around, found.artifact, split)):
                runner = engine_with_parts(found.around, found.artifact, parts, outputs, only=split is True, **settings)
            else:
                runner = TensorRTBackend(found.read, record, where=found.where, **settings)
        except BackendError as error:  # the library knows better than the manifest
            if found.bundle is None or backend is not None:
                raise
            found = _graph_instead(found, found.bundle, error, precision, providers, running)
    if split and found.runner == "openvino":
        found = _for_parts(found, backend)
    if runner is None and found.runner == "openvino":
        from mtl_deploy.runtime.backends.openvino.backend import OpenVinoBackend

        try:
            runner = OpenVinoBackend(
                found.read,
                where=found.where,
                threads=threads,
                outputs=outputs,
                mode=mode,
                arithmetic="f32" if arithmetic is None else arithmetic,
                requests=contexts,
                cache=found.cache(runtime_cache),
            )
        except BackendError as error:  # it does not run every graph, and may be broken
            if backend is not None or not _has_onnx_runtime():
                raise
            found = _without_openvino(found, error, precision)
    if found.misfit is not None and found.runner != "tensorrt":
        title = "ONNX Runtime" if found.runner == "onnxruntime" else "OpenVINO"
        _LOGGER.warning("%s; running %s on %s", found.misfit, found.where, title)
        warnings.warn(f"{found.misfit}; running {found.where} on {title}", FallbackWarning, stacklevel=5)
    if found.around is not None and (unchecked := found.around.manifest.unchecked):
        text = f"{found.around.path} comes from a quick export, for development: {'; '.join(unchecked)}"
        _LOGGER.warning("%s", text)
        warnings.warn(f"{text}; export it without --quick before it is used", UncheckedWarning, stacklevel=5)
    if runner is None:
        from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

        if arithmetic is not None:
            raise OptionError(
                f"arithmetic={arithmetic!r} is OpenVINO's, and {found.where} runs on ONNX Runtime; add backend='openvino'"
            )
        settings = {"providers": providers, "threads": threads, "spinning": spinning, "mode": mode}
        if (parts := parts_of(found.around, found.artifact, split)) and found.around is not None:
            runner = graph_parts(found.around, parts, outputs, **settings)
        else:
            runner = OnnxRuntimeBackend(found.read, where=found.where, outputs=outputs, **settings)
    try:
        signature = _signature(runner, found)
        model = Model(runner, signature, found.artifact, tasks, layout=layout, again=again, why=found.why)
        _LOGGER.info("loaded %s: %s; %s", found.where, model, found.why)
        return model
    except BaseException:
        runner.close()
        raise


def _gpu(device: int | str | None, backend: str | None) -> int | None:
    """Return CUDA's number of the GPU.

    Raises:
        OptionError: a number for OpenVINO.
        BackendError: a device of OpenVINO's that graphs do not run on.
    """
    if backend == "openvino":
        from mtl_deploy.runtime.backends.openvino.library import check_device

        check_device(device)
        return None
    return None if isinstance(device, str) else device  # names are refused for others before


def _for_parts(found: Found, backend: str | None) -> Found:
    """Return a graph that is to run in parts, on what runs parts of graphs: ONNX Runtime."""
    if backend is not None:
        raise OptionError(
            f"split=True and backend={backend!r}: parts of {found.where} run on ONNX Runtime; leave one of the two out"
        )
    return replace(found, runner="onnxruntime", why="parts of graphs run on ONNX Runtime")


def _graph_instead(
    found: Found,
    bundle: Bundle,
    error: BackendError,
    precision: str | None,
    providers: Sequence[str] | None,
    running: Running,
) -> Found:
    """Return the graph that runs where an engine does not; raise the engine's error if there is none."""
    try:
        choice = select(bundle, precision=precision, providers=providers, running=running, engines=False)
    except BackendError:
        raise error from None
    return replace(found, artifact=choice.artifact, misfit=str(error), runner=choice.backend, why=choice.why)


def _without_openvino(found: Found, error: BackendError, precision: str | None) -> Found:
    """Return what ONNX Runtime runs where OpenVINO fails: of a bundle, the graph in ONNX Runtime's own style."""
    artifact = found.artifact
    if found.bundle is not None:
        unlike = Running(unlike="as OpenVINO does not run here as it did")
        artifact = select(found.bundle, precision=precision, backend="onnxruntime", running=unlike).artifact
    misfit = found.misfit or str(error)
    return replace(found, artifact=artifact, runner="onnxruntime", misfit=misfit, why="OpenVINO does not run it")


def _unlike(verify_key: VerifyKey | None, mode: str, arithmetic: str | None, split: bool | None) -> str | None:
    """Return in what a graph is going to be run otherwise than graphs are measured; None: in nothing."""
    if verify_key is not None:
        return "as it is not signed"
    if mode != "latency":
        return f"as mode={mode!r} was not measured"
    if arithmetic is not None:
        return f"as arithmetic={arithmetic!r} was not measured"
    return "as parts were not measured" if split else None


def _has_onnx_runtime() -> bool:
    from mtl_deploy.runtime.backends.onnxruntime.backend import available_providers

    try:
        return bool(available_providers())
    except BackendError:
        return False


def _signature(backend: Backend, found: Found) -> Signature:
    """Return what the file computes: by its own metadata, or for an engine, which has none, by the manifest."""
    record = backend.metadata.get(METADATA_KEY)
    if record is not None:
        signature = Signature.from_json(record, found.where)
    elif found.around is not None and found.artifact is not None and found.artifact.backend == "tensorrt":
        signature = found.around.manifest.signature.subset(found.artifact.tasks)
    else:
        raise BundleError(f"{found.where}: a graph without tasks in its metadata; export the network with mtl-export")
    check_specs(backend, signature, found.where)
    return signature
