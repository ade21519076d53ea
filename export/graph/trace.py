"""From a network to a raw graph: float images in, the network's own outputs out, nothing merged or folded yet."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
import torch.onnx.errors

from mtl_deploy.runtime.errors import TraceError

from .borders import FREE_SIZE
from .opset import require_operators
from .sizes import fix_size, name_free_sizes

TRACE_OPSET = 18  # the exporter's native one; export/graph/opset.py converts down from there, the exporter itself up


@dataclass(frozen=True)
class TracedGraph:
    """A network's graph as the exporter wrote it.

    Attributes:
        model: input ``(N, 3, H, W) float32``; outputs in the exporter's order, under the exporter's names.
        batch: the only N that it takes; None if N is free.
        note: why the batch is fixed; empty if it is free.
    """

    model: ir.Model
    batch: int | None = None
    note: str = ""

    @property
    def description(self) -> str:
        """For people: whether the batch is free."""
        return "any batch" if self.batch is None else self.note

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the bundle should know."""
        return (self.note,) if self.note else ()


def trace(
    network: torch.nn.Module | torch.export.ExportedProgram,
    height: int,
    width: int,
    *,
    opset: int | None = None,
    multiple: int = 0,
) -> TracedGraph:
    """Export a network with ``torch.onnx.export(dynamo=True)``, unoptimised, so that its own structure can be measured.

    A free batch is tried first. If the network fixes its batch in code, the graph is traced for one image at a time, and
    the result says so.

    Args:
        network: in eval mode on the CPU, taking ``(N, 3, height, width) float32``; or a ``torch.export`` program.
        height: pixels.
        width: pixels.
        opset: the one wanted in the end; if it is below 18, the trace has 18, and :mod:`mtl_deploy.export.graph.opset` converts it.
        multiple: 0 for a graph of this size alone. Otherwise height and width are free, each a multiple of this, and called
            ``height`` and ``width`` in the graph.

    Raises:
        TraceError: the exporter cannot turn the network into a graph.
    """
    opset = max(opset or TRACE_OPSET, TRACE_OPSET)
    if isinstance(network, torch.export.ExportedProgram):
        found = _trace_program(network, opset)
        shape = found.model.graph.inputs[0].shape
        if not multiple and shape is not None and not all(isinstance(size, int) for size in shape[2:]):
            fix_size(found.model, height, width)
    else:
        # a dimension of 1 would be treated as a constant
        example = torch.zeros(2, 3, max(height, 2 * multiple), max(width, 2 * multiple))
        sides = {2: multiple * torch.export.Dim("h"), 3: multiple * torch.export.Dim("w")} if multiple else {}
        found = _trace_network(network, example, sides, opset)
    if multiple:
        name_free_sizes(found.model, *FREE_SIZE)
    return found


def _trace_network(network: torch.nn.Module, example: torch.Tensor, sides: dict[int, Any], opset: int) -> TracedGraph:
    try:
        return TracedGraph(
            _export(network, (example,), opset, dynamic_shapes=({0: torch.export.Dim("batch"), **sides},))
        )
    except TraceError as free_batch:
        try:
            graph = _export(network, (example[:1],), opset, **({"dynamic_shapes": (sides,)} if sides else {}))
        except TraceError as fixed_batch:
            if sides:
                raise TraceError(
                    f"{fixed_batch}. With --dynamic-size, height and width are free in the graph: leave it out to export one size, "
                    "or let the network's forward take sizes from its tensors"
                ) from free_batch
            raise fixed_batch from free_batch
        note = f"the network fixes its batch size, so the graph takes one image at a time ({_reason(free_batch)})"
        return TracedGraph(graph, batch=1, note=note)


def _trace_program(program: torch.export.ExportedProgram, opset: int) -> TracedGraph:
    graph = _export(program, (), opset)
    batch = graph.graph.inputs[0].shape
    if batch is None or len(batch) != 4:
        raise TraceError(
            f"the program takes {batch}, not one batch of images (N, 3, height, width); export it again that way"
        )
    if isinstance(batch[0], int):
        note = f"the program was exported for batches of {batch[0]}; give torch.export a dynamic batch to free it"
        return TracedGraph(graph, batch=batch[0], note=note)
    batch_name = str(batch[0])
    if batch_name != "batch":
        _rename_dimension(graph, batch_name, "batch")
    return TracedGraph(graph)


def _export(network: Any, example: tuple[torch.Tensor, ...], opset: int, **options: Any) -> ir.Model:
    chatter = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(chatter),
            contextlib.redirect_stderr(chatter),
            _quiet(),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, example, dynamo=True, optimize=False, opset_version=opset, verbose=False, **options
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise TraceError(f"torch cannot export this network: {_first_cause(error)}") from error
    except Exception as error:  # the network's own code runs here and can raise anything
        raise TraceError(f"torch cannot export this network: {type(error).__name__}: {_first_line(error)}") from error
    assert program is not None  # what dynamo=True returns
    graph: ir.Model = program.model
    if len(graph.graph.inputs) != 1:
        names = ", ".join(str(value.name) for value in graph.graph.inputs)
        raise TraceError(
            f"the network takes {len(graph.graph.inputs)} inputs ({names}); one batch of images is supported"
        )
    require_operators(graph)
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's log lines off the user's terminal: failures are reported as errors of this project."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _rename_dimension(model: ir.Model, old: str, new: str) -> None:
    values = [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([new if str(size) == old else size for size in value.shape])


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _reason(error: TraceError) -> str:
    return str(error).removeprefix("torch cannot export this network: ")
