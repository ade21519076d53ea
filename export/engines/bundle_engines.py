"""The engines of a bundle: which library builds them, from which graphs, and what the manifest records about them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.export.targets.operators import NOT_BUILT_IN_RTX
from mtl_deploy.runtime.backends.tensorrt.library import EXTRAS, LIBRARIES, TITLES, Library, import_library, installed
from mtl_deploy.runtime.backends.tensorrt.log import Messages
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.backends.tensorrt.start import require_driver, start_runtime
from mtl_deploy.runtime.bundle.manifest import Artifact, Part
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.cuda.gpu import Gpu, find_gpu
from mtl_deploy.runtime.errors import BackendError, NoGpuError, OptionError

from .build import Built, Shapes, build
from .layers import from_inspector, from_plan

PRECISIONS = ("fp32", "fp16", "int8")  # of graphs that engines are built from
Graph = TypeVar("Graph", bound=Artifact)
_SUFFIXES = {"tensorrt": ".trt", "tensorrt-rtx": ".rtx.trt"}


@dataclass(frozen=True)
class Builder:
    """A library that can build here, with its settings.

    Attributes:
        library: that builds.
        gpu: of this machine; None if there is none and none is needed.
        options: how engines are built.
    """

    library: Library
    gpu: Gpu | None
    options: EngineOptions


def find_builder(options: EngineOptions) -> Builder | str:
    """Return what builds engines here or, if no library was asked for by name, one line on why there is none.

    Raises:
        BackendError: the requested library is missing, broken, or has no GPU to build on.
    """
    if options.library == "none":
        return ""
    asked = options.library if options.library in LIBRARIES else None
    reasons = []
    for name in (asked,) if asked else LIBRARIES:
        if asked is None and (name not in installed() or (name == "tensorrt" and options.gpus)):
            continue
        try:
            return _builder(name, options)
        except BackendError as error:
            if asked:
                raise
            reasons.append(str(error))
    if reasons:
        return f"No engines: {'; '.join(reasons)}."
    return (
        f"No engines: neither TensorRT nor TensorRT-RTX is installed ({EXTRAS['tensorrt']} on the device, or "
        f"'mtl-deploy[tensorrt-rtx]' anywhere); then run: mtl-export BUNDLE."
    )


def builder_for(tasks: Sequence[Task], options: EngineOptions) -> Builder | str:
    """Return the same for tasks that are to be exported: not a library that has no kernel for what their decoding needs.

    Raises:
        BackendError: see :func:`find_builder`.
        OptionError: the requested library has no such kernel.
    """
    found = find_builder(options)
    if isinstance(found, str) or found.library.name != "tensorrt-rtx":
        return found
    missing = {name: task.name for task in tasks for name in kind_of(task).operators(task) if name in NOT_BUILT_IN_RTX}
    for name, task in missing.items():
        reason = f'{found.library.title} has no kernel for {name}, which task {task!r} needs (nms = "graph")'
        if options.library in LIBRARIES:
            raise OptionError(f"{reason}; leave the suppression to the runtime (--nms runtime), or build with TensorRT")
        return f"No engines: {reason}."
    return found


def _builder(name: str, options: EngineOptions) -> Builder:
    try:
        gpu: Gpu | None = find_gpu()
    except NoGpuError as error:
        if name == "tensorrt":  # its builder needs a GPU; without one, its bindings can crash the process
            raise NoGpuError(
                f"{TITLES[name]} builds on the GPU that the engine is for, and this machine has {error}; run mtl-export BUNDLE "
                "on the device, or build ahead of time with TensorRT-RTX (--engine tensorrt-rtx)"
            ) from error
        gpu = None
    if gpu is not None and name == "tensorrt":
        require_driver(name, gpu.driver)
    return Builder(import_library(name), gpu, options)


def build_engines(
    graphs: Sequence[Graph],
    read: Callable[[Artifact], bytes],
    builder: Builder,
    progress: Progress,
    size: tuple[int, int] | None = None,
) -> Iterator[tuple[Graph, bytes]]:
    """Build an engine from each graph, one at a time, all with the same settings.

    Args:
        graphs: artifacts, or parts; the ONNX graphs of the chosen precisions among them get engines.
        read: returns a graph's bytes.
        builder: builds the engines.
        progress: shows what is being done.
        size: height and width that engines are for, if the graphs leave them free: an engine is tuned for one size.

    Yields:
        The manifest's entry for an engine, and its plan.

    Raises:
        OptionError: a setting does not fit the library or a graph.
        BuildError: the library cannot build an engine.
    """
    wanted = PRECISIONS if builder.options.precisions is None else builder.options.precisions
    chosen = [graph for graph in graphs if graph.backend == "onnxruntime" and graph.precision in wanted]
    if not chosen:
        has = ", ".join(sorted({graph.precision for graph in graphs if graph.precision in PRECISIONS}))
        raise OptionError(f"--precision {','.join(wanted)}: the graphs to build engines from are {has}")
    for graph in chosen:
        yield _build_one(graph, read(graph), builder, progress, size)


def _build_one(
    graph: Graph, content: bytes, builder: Builder, progress: Progress, size: tuple[int, int] | None
) -> tuple[Graph, bytes]:
    path = graph.path.removesuffix(".onnx") + _SUFFIXES[builder.library.name]
    profile = builder.options.profile(graph.batch_min if graph.batch_min == graph.batch_max else None)
    if "sm75" in builder.options.gpus:
        from .turing import products_as_convolutions

        content = products_as_convolutions(content)
    title = f"Building {path} with {builder.library.title}"
    with progress.step(title) as say:
        built = build(
            content,
            graph.path,
            builder.library,
            builder.options,
            profile,
            lambda text: progress.update(f"{title}: {text}"),
            size,
            _inputs(graph, profile) if isinstance(graph, Part) else None,
        )
        artifact = _artifact(graph, path, profile, builder, built)
        if size is not None:  # the graph takes several sizes, the engine this one
            artifact = replace(artifact, details=artifact.details | {"image_size": list(size)})
        say(describe_layers(artifact.details) or f"{len(built.plan) / 1e6:.1f} MB")
    return artifact, built.plan


def _inputs(part: Part, profile: tuple[int, int, int]) -> dict[str, Shapes]:
    """Return the shapes of a part's inputs for the batches of a profile."""
    found = {}
    for border in part.inputs:
        least, best, most = (border.shape(batch - part.batch_min) for batch in profile)
        found[border.name] = least, best, most
    return found


def _artifact(graph: Graph, path: str, profile: tuple[int, int, int], builder: Builder, built: Built) -> Graph:
    library, gpu, options = builder.library, builder.gpu, builder.options
    on_device = gpu if library.name == "tensorrt" else None
    capabilities = [on_device.sm] if on_device else [f"{name[2:-1]}.{name[-1]}" for name in options.gpus]
    layers = from_plan(library, built.plan) or _inspect(library, gpu, built.plan)
    record = EngineRecord(
        library=library.name,
        version=library.version,
        compute_capabilities=tuple(capabilities),
        gpu=on_device.name if on_device else None,
        driver=gpu.driver if gpu else None,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        batch_opt=profile[1],
        source=graph.path,
        source_sha256=graph.sha256,
        rest={
            **layers,
            "driver_version": _driver_version() if gpu else None,
            "build_seconds": round(built.seconds, 2),
            "settings": options.to_dict(),
            "warnings": list(built.warnings),
            "verified": None,  # until it has run, see check.py
        },
    )
    return replace(
        graph,
        path=path,
        backend="tensorrt",
        batch_min=profile[0],
        batch_max=profile[2],
        opset=None,
        sha256=hashlib.sha256(built.plan).hexdigest(),
        size_bytes=len(built.plan),
        details=record.to_details(),
    )


def _inspect(library: Library, gpu: Gpu | None, plan: bytes) -> dict[str, Any]:
    """Ask TensorRT's inspector for the types of the layers; empty if there is no GPU to ask it on."""
    return {} if gpu is None else from_inspector(inspect_plan(library, plan) or "")


def inspect_plan(library: Library, plan: bytes) -> str | None:
    """Return what TensorRT's inspector says about an engine's layers, as JSON; None if this machine's GPU cannot run the engine.

    Raises:
        BackendError: CUDA does not start for the library.
        NoGpuError: there is no GPU.
    """
    from mtl_deploy.runtime.cuda.context import Context

    context, messages = Context(), Messages()
    try:
        with context.active():
            runtime = start_runtime(library, messages)
            engine = runtime.deserialize_cuda_engine(plan)
            found = None if engine is None else library.inspect(engine)
            del engine, runtime  # in this order
            return found
    finally:
        context.close()


def _driver_version() -> str | None:
    """Return the kernel driver's own version, such as ``580.65.06``."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def describe_layers(details: dict[str, Any]) -> str:
    """Return a text such as ``20 layers in fp16, 3 in fp32``; empty if that is not known."""
    layers = details.get("layers") or {}
    parts = [
        f"{count} {'layers ' if position == 0 else ''}in {name}"
        for position, (name, count) in enumerate(layers.items())
    ]
    return ", ".join(parts)
