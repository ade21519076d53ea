"""Loading a bundle, or one file of it: which artifact runs here, on which backend."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.backends.base import Backend
from mtl_deploy.runtime.backends.specs import check_specs
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import (
    ENGINE_SUFFIXES,
    MANIFEST,
    Artifact,
    Bundle,
    Part,
    find_bundle,
    manifest_state,
    open_bundle,
)
from mtl_deploy.runtime.bundle.signature import METADATA_KEY, Signature
from mtl_deploy.runtime.bundle.signing import VerifyKey, require_signed
from mtl_deploy.runtime.console.mistaken import no_bundle
from mtl_deploy.runtime.files.reading import describe, read_bytes
from mtl_deploy.runtime.images.camera import known_layout
from mtl_deploy.runtime.onnx_format.check import check_graph

from .errors import BackendError, BundleError, FallbackWarning, OptionError, UncheckedWarning
from .in_parts import engine_with_parts, graph_parts, parts_of
from .load_options import check_load_options
from .model import Model, unique_names
from .selection import BACKENDS, select

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
    device: int | None = None,
    contexts: int = 4,
    cuda_graphs: int = 8,
    runtime_cache: str | os.PathLike[str] | bool | None = None,
    verify_key: VerifyKey | None = None,
    layout: str | None = None,
    split: bool | None = None,
) -> Model:
    """Load a bundle, or one graph or engine.

    A file of a bundle is read only if its SHA-256 is the manifest's; with ``verify_key``, only if the manifest is also signed.

    Args:
        path: a bundle (its folder or its ``manifest.json``), a graph or engine in one (such as ``separate/age.onnx``), or a lone
            ``.onnx`` that ``mtl-export`` wrote.
        precision: ``fp32`` or ``fp16``; None: fp16 on a GPU where the bundle has it, otherwise fp32 (processors compute FP16
            graphs in FP32, with conversions on top).
        backend: ``tensorrt`` or ``onnxruntime``; None: an engine where one fits this machine, else the graph, with a
            :class:`FallbackWarning` that says why no engine fits.
        providers: ONNX Runtime's execution providers, in order of preference (``CUDA`` or ``CUDAExecutionProvider``); None: CUDA
            where the machine has a device, then CPU. Naming any selects ONNX Runtime.
        tasks: the tasks that will be used; None: all. ONNX Runtime never computes the others.
        threads: ONNX Runtime's threads inside an operator; None: one per physical core.
        spinning: whether ONNX Runtime's idle threads spin: lower latency, more load.
        device: CUDA's number of the GPU for an engine; None: the one of the thread's current CUDA context, else 0.
        contexts: the most execution contexts of an engine: calls from more threads wait.
        cuda_graphs: CUDA graphs that a context of an engine keeps, one per batch size and set of buffers; 0 turns them off.
        runtime_cache: TensorRT-RTX's file of compiled kernels; None: beside the engine, or none where ``verify_key`` is given, as
            that file is not signed; False: none.
        verify_key: run only what the holder of this key signed (``mtl-export --sign``): an Ed25519 public key, as a PEM file, PEM
            in bytes, or its 32 bytes. None: no signature is required.

        layout: the colours of the arrays that the application passes: ``rgb`` (None means that too), ``bgr``, as OpenCV reads
            images, or ``gray``. It is independent of the network's own order, which the bundle knows. A call may say otherwise. A
            bundle that was exported for frames of a camera (``mtl-export --source``) knows their layout; None is that.
        split: run the network in parts, for bundles of ``mtl-export --split``: the backbone once, then the heads that a call asks
            for, in the memory that it left. None: with an engine, the parts run where a call asks for some of the tasks, and the
            whole engine where it asks for all; on ONNX Runtime cut graphs run.

    Raises:
        BundleError: not a bundle or graph of this package, or one of another release; :class:`IntegrityError` for a changed file,
            or one that is not signed as ``verify_key`` demands.
        BackendError: nothing installed here can run it as requested.
        TaskError: a task does not exist.
        OptionError: there is no such layout, the bundle takes frames of another, or there are no parts to run.
        DeviceMemoryError: the GPU's memory is full.
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
    device: int | None,
    contexts: int,
    cuda_graphs: int,
    runtime_cache: str | os.PathLike[str] | bool | None,
    verify_key: VerifyKey | None,
    layout: str | None,
    split: bool | None,
    again: tuple[Callable[..., Any], tuple[Any, ...]],
) -> Model:
    found = _find(Path(path), precision, backend, providers, device)
    if verify_key is not None:
        require_signed(found.around, verify_key, found.where)
        runtime_cache = False if runtime_cache is None else runtime_cache
    artifact, misfit = found.artifact, found.misfit
    outputs = None if tasks is None else unique_names(tasks)
    runner: Backend | None = None
    if artifact is not None and artifact.backend == "tensorrt":
        from mtl_deploy.runtime.backends.tensorrt.backend import TensorRTBackend

        try:
            record = EngineRecord.from_details(artifact.details, found.where)
            settings: dict[str, Any] = {"device": device, "contexts": contexts, "graphs": cuda_graphs}
            settings["runtime_cache"] = runtime_cache
            if found.around is not None and (parts := parts_of(found.around, artifact, split)):
                runner = engine_with_parts(found.around, artifact, parts, outputs, only=split is True, **settings)
            else:
                runner = TensorRTBackend(found.read, record, where=found.where, **settings)
        except BackendError as error:  # the library knows better than the manifest
            if found.bundle is None or backend is not None:
                raise
            misfit = str(error)
            try:
                choice = select(found.bundle, precision=precision, backend="onnxruntime", providers=providers)
            except BackendError:  # no graph to continue with
                raise error from None
            artifact = choice.artifact
            found = replace(found, artifact=artifact)
    if misfit is not None and (artifact is None or artifact.backend == "onnxruntime"):
        _LOGGER.warning("%s; running %s on ONNX Runtime", misfit, found.where)
        warnings.warn(f"{misfit}; running {found.where} on ONNX Runtime", FallbackWarning, stacklevel=5)
    if found.around is not None and (unchecked := found.around.manifest.unchecked):
        text = f"{found.around.path} comes from a quick export, for development: {'; '.join(unchecked)}"
        _LOGGER.warning("%s", text)
        warnings.warn(f"{text}; export it without --quick before it is used", UncheckedWarning, stacklevel=5)
    if runner is None:
        from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend

        settings = {"providers": providers, "threads": threads, "spinning": spinning}
        if (parts := parts_of(found.around, artifact, split)) and found.around is not None:
            runner = graph_parts(found.around, parts, outputs, **settings)
        else:
            runner = OnnxRuntimeBackend(found.read, where=found.where, outputs=outputs, **settings)
    try:
        model = Model(runner, _signature(runner, found), artifact, tasks, layout=layout, again=again)
        _LOGGER.info("loaded %s: %s", found.where, model)
        return model
    except BaseException:
        runner.close()
        raise


@dataclass(frozen=True)
class _Found:
    """A file to run.

    Attributes:
        bundle: the one that it was chosen from; None where the file itself was named.
        around: the bundle that it is in; None for a lone graph.
        artifact: its entry there.
        lone: a lone graph's path.
        misfit: why an engine was not chosen.
    """

    bundle: Bundle | None
    around: Bundle | None
    artifact: Artifact | None
    lone: Path
    misfit: str | None = None

    @property
    def where(self) -> str:
        """How errors call it."""
        if self.around is None or self.artifact is None:
            return str(self.lone)
        return str(self.around.path / self.artifact.path)

    def read(self) -> bytes:
        """Return its bytes, checked against the manifest's SHA-256 where there is one; a graph must hold all its weights."""
        if self.around is None or self.artifact is None:
            try:
                content = read_bytes(self.lone, None)
            except OSError as error:
                raise BundleError(f"{self.lone}: {describe(error)}") from error
            check_graph(content, str(self.lone))
            return content
        return self.around.read(self.artifact)


def _find(
    file: Path, precision: str | None, backend: str | None, providers: Sequence[str] | None, device: int | None
) -> _Found:
    if file.is_dir() or file.name == MANIFEST:
        bundle = open_bundle(file)
        choice = select(bundle, precision=precision, backend=backend, providers=providers, device=device)
        return _Found(bundle, bundle, choice.artifact, file, choice.misfit)
    if backend not in (None, *BACKENDS):
        raise BackendError(f"backend {backend!r}: this release has {', '.join(BACKENDS)}")
    if not file.is_file():
        raise BundleError(no_bundle(file))
    if precision is not None:
        raise OptionError(
            f"{file} is one file, and precision={precision!r} chooses among those of a bundle; leave it out"
        )
    if (found := find_bundle(file)) is not None:
        around, artifact = found
        if isinstance(artifact, Part):
            raise OptionError(f"{file} is a part of a network; load the bundle {around.path} with split=True")
        if backend not in (None, artifact.backend):
            raise OptionError(f"{file} runs on {artifact.backend}, not on backend={backend!r}; leave that out")
        return _Found(None, around, artifact, file)
    if file.suffix in ENGINE_SUFFIXES:
        raise BundleError(
            f"{file}: an engine runs only from its bundle, whose manifest says what it computes and holds its SHA-256 (an engine "
            "can run code); pass its path there"
        )
    if file.suffix != ".onnx":
        raise BundleError(no_bundle(file, "a bundle or an .onnx graph"))
    return _Found(None, None, None, file)


def _signature(backend: Backend, found: _Found) -> Signature:
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
