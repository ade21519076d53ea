"""Building one engine from one graph: with progress, cancellation, and the library's own message if it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mtl_deploy.export.options.engines import EngineOptions
from mtl_deploy.runtime.backends.tensorrt.library import Library
from mtl_deploy.runtime.backends.tensorrt.log import Messages, logger_for
from mtl_deploy.runtime.backends.tensorrt.start import start_builder
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.errors import BuildError, OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.onnx_format.graph import OnnxGraph, read_graph

_TYPES = {"float32": "fp32", "float16": "fp16"}
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Of an input, for the smallest, the optimal and the largest batch."""


@dataclass(frozen=True)
class Built:
    """A serialized engine.

    Attributes:
        plan: the library's own bytes, with nothing before or after them.
        seconds: how long the build took.
        warnings: of the library.
    """

    plan: bytes
    seconds: float
    warnings: tuple[str, ...]


def build(
    content: bytes,
    where: str,
    library: Library,
    options: EngineOptions,
    profile: tuple[int, int, int],
    progress: Callable[[str], None] = lambda _: None,
    size: tuple[int, int] | None = None,
    inputs: Mapping[str, Shapes] | None = None,
) -> Built:
    """Build an engine.

    Args:
        content: an ``.onnx`` file. Its types and Q/DQ nodes determine the engine's precision.
        where: the graph's name in errors.
        library: builds the engine.
        options: the settings.
        profile: smallest, optimal and largest batch.
        progress: called with what is being done.
        size: height and width that the engine is for, if the graph leaves them free.
        inputs: of a part of a network: the shapes of each of its inputs for the profile's batches; None: the graph takes the image.

    Raises:
        OptionError: the library lacks a requested setting.
        BackendError: the library cannot build here.
        BuildError: the library cannot read the graph, or cannot build an engine from it; names the node.
        KeyboardInterrupt: Ctrl-C; the build has ended by then.
    """
    trt, messages = library.module, Messages()
    builder = start_builder(library, messages)
    if options.threads is not None:
        builder.max_threads = options.threads
    network = builder.create_network(library.network_flags())
    parser = trt.OnnxParser(network, logger_for(trt, messages))
    if not parser.parse(content):
        raise BuildError(f"{library.title} cannot read {where}: {_parse_error(parser, content, messages)}")
    config = builder.create_builder_config()
    messages.clear()
    cache = _configure(library, config, options)
    library.obey_types(network, config, {} if library.strongly_typed else node_types(read_graph(content)))
    _add_profile(builder, network, config, inputs or {INPUT_NAME: _image_shapes(network, profile, size)})
    started = time.perf_counter()
    plan = _run(library, builder, network, config, progress)
    if plan is None:
        raise BuildError(f"{library.title} could not build an engine from {where}: {messages.reason()}")
    seconds = time.perf_counter() - started
    if cache is not None and options.timing_cache is not None:
        try:
            disk.replace_file(options.timing_cache, bytes(memoryview(cache.serialize())))
        except OSError as error:
            raise OptionError(f"--timing-cache {options.timing_cache}: {error.strerror or error}") from error
    return Built(bytes(memoryview(plan)), seconds, tuple(messages.warnings))


def _configure(library: Library, config: Any, options: EngineOptions) -> Any:
    """Apply the settings; return the timing cache, or None."""
    library.prepare(config)
    library.set_tf32(config, options.tf32)
    if options.workspace_mib is not None:
        library.set_workspace(config, options.workspace_mib << 20)
    if options.optimization_level is not None:
        library.set_optimization_level(config, options.optimization_level)
    if options.version_compatible:
        library.set_version_compatible(config)
    if options.hardware_compatibility != "none":
        library.set_hardware_compatibility(config, options.hardware_compatibility)
    if options.gpus:
        library.set_gpus(config, options.gpus)
    if options.tactic_sources is not None:
        library.set_tactic_sources(config, options.tactic_sources)
    return None if options.timing_cache is None else library.load_timing_cache(config, options.timing_cache)


def _image_shapes(network: Any, profile: tuple[int, int, int], size: tuple[int, int] | None) -> Shapes:
    given = iter(size or ())
    sizes = tuple(next(given, side) if side < 0 else side for side in tuple(network.get_input(0).shape)[1:])
    least, best, most = profile
    return (least, *sizes), (best, *sizes), (most, *sizes)


def _add_profile(builder: Any, network: Any, config: Any, inputs: Mapping[str, Shapes]) -> None:
    read = {network.get_input(number).name for number in range(network.num_inputs)}
    shapes = builder.create_optimization_profile()
    for name, (least, best, most) in inputs.items():
        if name in read:
            shapes.set_shape(name, least, best, most)
    config.add_optimization_profile(shapes)


def _run(library: Library, builder: Any, network: Any, config: Any, progress: Callable[[str], None]) -> Any:
    """Build in another thread, so that Ctrl-C reaches this one; return the plan, or None."""
    cancelled = threading.Event()
    found: list[Any] = []
    monitor = _monitor(library.module, cancelled, progress) if library.reports_progress else None
    if monitor is not None:
        config.progress_monitor = monitor
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            found.append(builder.build_serialized_network(network, config))
        finally:
            ended.set()

    started = time.perf_counter()
    try:
        threading.Thread(target=work, daemon=True).start()
        while not ended.wait(0.1):
            if monitor is None:
                progress(f"{time.perf_counter() - started:.0f} s")
    except KeyboardInterrupt:
        cancelled.set()
        if monitor is None:
            progress(f"{library.title} cannot be interrupted; waiting for it to end")
        if begun.wait(1):  # the interrupt may have come while the thread was starting
            ended.wait()
        raise
    return found[0] if found else None


def _monitor(trt: Any, cancelled: threading.Event, progress: Callable[[str], None]) -> Any:
    started = time.perf_counter()
    phases: dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:  # noqa: ARG002 - its signature
            phases[phase] = steps
            progress(f"{phase}, {time.perf_counter() - started:.0f} s")

        def step_complete(self, phase: str, step: int) -> bool:
            progress(f"{phase} {step + 1}/{phases.get(phase, 0)}, {time.perf_counter() - started:.0f} s")
            return not cancelled.is_set()

        def phase_finish(self, phase: str) -> None:
            phases.pop(phase, None)

    return Monitor()


def _parse_error(parser: Any, content: bytes, messages: Messages) -> str:
    """Return which ONNX node the parser stopped at, and why."""
    if not parser.num_errors:
        return messages.reason()
    error = parser.get_error(0)
    name, operator = getattr(error, "node_name", lambda: "")(), getattr(error, "node_operator", lambda: "")()
    if not operator:  # TensorRT 8 gives only the position
        nodes = read_graph(content).nodes
        if 0 <= error.node() < len(nodes):
            name, operator = nodes[error.node()].name, nodes[error.node()].op_type
    reason = " ".join(error.desc().split())
    return f"node {name!r} ({operator}): {reason}" if operator else reason


def node_types(graph: OnnxGraph) -> dict[str, str]:
    """Return the type that each node computes in: ``fp32``, ``fp16``, or ``int8`` for a Q/DQ node.

    Nodes of other types are left out, and so are neighbours of Q/DQ nodes: TensorRT 8.6 chooses their type when it fuses them.
    """
    quantized = {name for node in graph.nodes if node.op_type == "DequantizeLinear" for name in node.outputs}
    quantized |= {node.inputs[0] for node in graph.nodes if node.op_type == "QuantizeLinear"}
    found = {}
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found[node.name] = "int8"
        elif quantized.isdisjoint((*node.inputs, *node.outputs)) and node.output_types:
            kind = _TYPES.get(node.output_types[0] or "")
            if kind is not None:
                found[node.name] = kind
    return found
