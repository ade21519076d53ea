"""From a network to a raw graph: float images in, the network's own outputs out, nothing merged or folded yet."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch
import torch.onnx.errors

from mtl_deploy.runtime.console.resting import uncollected
from mtl_deploy.runtime.errors import TraceError

from .borders import FREE_SIZE
from .causes import first_cause, named_line
from .opset import HIGHEST, NotExpressibleError, needed_opset
from .sizes import fix_size, name_free_sizes

TRACE_OPSET = 18  # the exporter's native one; export/graph/opset.py converts down from there, the exporter itself up


@dataclass(frozen=True)
class TracedGraph:
    """A network's graph as the exporter wrote it.

    Attributes:
        model: input ``(N, C, H, W) float32``; outputs in the exporter's order, under the exporter's names.
        batch: the only N that it takes; None if N is free.
        note: why the batch is fixed; empty if it is free.
        risen: why the opset is higher than it had to be; empty if it is not.
    """

    model: ir.Model
    batch: int | None = None
    note: str = ""
    risen: str = ""

    @property
    def description(self) -> str:
        """For people: whether the batch is free, and whether an operator needs a later opset."""
        return "; ".join(text for text in ("any batch" if self.batch is None else self.note, self.risen) if text)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the bundle should know."""
        return tuple(note for note in (self.note, self.risen) if note)


def trace(
    network: torch.nn.Module | torch.export.ExportedProgram,
    height: int,
    width: int,
    *,
    opset: int | None = None,
    multiple: int = 0,
    channels: int = 3,
    batch: int | None = None,
) -> TracedGraph:
    """Export a network with ``torch.onnx.export(dynamo=True)``, unoptimised, so that its own structure can be measured.

    A free batch is tried first. If the network fixes its batch in code, the graph is traced for one image at a time, and
    the result says so.

    Args:
        network: in eval mode on the CPU, taking ``(N, channels, height, width) float32``; or a ``torch.export`` program.
        height: pixels.
        width: pixels.
        opset: the one wanted in the end; if it is below 18, the trace has 18, and :mod:`mtl_deploy.export.graph.opset` converts it.
        multiple: 0 for a graph of this size alone. Otherwise height and width are free, each a multiple of this, and called
            ``height`` and ``width`` in the graph.
        channels: of an image.
        batch: the only N that the network takes; None if it takes any, as far as is known.

    Raises:
        TraceError: the exporter cannot turn the network into a graph.
        NotExpressibleError: an operator needs a higher opset than the one that was asked for.
    """
    found = _trace_once(network, height, width, max(opset or TRACE_OPSET, TRACE_OPSET), multiple, channels, batch)
    needed, operator = needed_opset(found.model)
    if needed > found.model.opset_imports[""]:
        if opset is not None or needed > HIGHEST:
            reach = (
                f"; this release writes {HIGHEST} at most" if needed > HIGHEST else "; leave --opset out, or raise it"
            )
            raise NotExpressibleError(f"the network needs {operator}, an operator of opset {needed} and later{reach}")
        found = _trace_once(network, height, width, needed, multiple, channels, batch)
        found = replace(found, risen=f"opset {needed}, since {operator} came with it; TensorRT 8.6 reads 17 at most")
    return found


def _trace_once(
    network: torch.nn.Module | torch.export.ExportedProgram,
    height: int,
    width: int,
    opset: int,
    multiple: int,
    channels: int,
    batch: int | None,
) -> TracedGraph:
    if isinstance(network, torch.export.ExportedProgram):
        found = _trace_program(network, opset)
        shape = found.model.graph.inputs[0].shape
        if not multiple and shape is not None and not all(isinstance(size, int) for size in shape[2:]):
            fix_size(found.model, height, width)
    else:
        # a dimension of 1 would be treated as a constant
        example = torch.zeros(batch or 2, channels, max(height, 2 * multiple), max(width, 2 * multiple))
        sides = {2: multiple * torch.export.Dim("h"), 3: multiple * torch.export.Dim("w")} if multiple else {}
        found = _trace_network(_copied(network), example, sides, opset, batch)
    if multiple:
        name_free_sizes(found.model, *FREE_SIZE)
    return found


def _copied(network: torch.nn.Module) -> torch.nn.Module:
    """Return a deep copy, since networks keep grids and anchors, which would be the tracer's; or the network, if it has none."""
    try:
        return copy.deepcopy(network)
    except Exception:  # noqa: BLE001 - the network's own code runs here and can raise anything
        return network


def _trace_network(
    network: torch.nn.Module, example: torch.Tensor, sides: dict[int, Any], opset: int, batch: int | None
) -> TracedGraph:
    if batch is not None:
        taken = "one image at a time" if batch == 1 else f"batches of {batch}, and no other"
        note = f"the network fixes its batch size, so the graph takes {taken} (its forward fails on other batches)"
        return TracedGraph(_export_fixed(network, example, sides, opset), batch=batch, note=note)
    why: TraceError | None = None
    try:
        shapes = ({0: torch.export.Dim("batch"), **sides},)
        graph = _export(network, (example,), opset, dynamic_shapes=shapes)
        if not isinstance(_batch(graph), int):
            return TracedGraph(graph)
    except TraceError as error:
        why = error
    reason = "its code uses the number of images as a plain number" if why is None else _reason(why)
    try:
        graph = _export_fixed(network, example[:1], sides, opset)
    except TraceError as error:
        raise error from why
    note = f"the network fixes its batch size, so the graph takes one image at a time ({reason})"
    return TracedGraph(graph, batch=1, note=note)


def _export_fixed(network: torch.nn.Module, example: torch.Tensor, sides: dict[int, Any], opset: int) -> ir.Model:
    try:
        return _export(network, (example,), opset, **({"dynamic_shapes": (sides,)} if sides else {}))
    except TraceError as error:
        if not sides:
            raise
        raise TraceError(
            f"{error}. With --dynamic-size, height and width are free in the graph: leave it out to export one size, "
            "or let the network's forward take sizes from its tensors"
        ) from error


def _batch(graph: ir.Model) -> int | str | None:
    shape = graph.graph.inputs[0].shape
    size = None if shape is None else shape[0]
    return size if isinstance(size, int) or size is None else str(size)


def _trace_program(program: torch.export.ExportedProgram, opset: int) -> TracedGraph:
    graph = _export(program, (), opset)
    batch = graph.graph.inputs[0].shape
    if batch is None or len(batch) != 4:
        raise TraceError(
            f"the program takes {batch}, not one batch of images (N, C, height, width); export it again that way"
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
            uncollected(),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, example, dynamo=True, optimize=False, opset_version=opset, verbose=False, **options
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise TraceError(f"torch cannot export this network: {first_cause(error)}") from error
    except Exception as error:  # the network's own code runs here and can raise anything
        raise TraceError(f"torch cannot export this network: {named_line(error)}") from error
    assert program is not None  # what dynamo=True returns
    graph: ir.Model = program.model
    if len(graph.graph.inputs) != 1:
        names = ", ".join(str(value.name) for value in graph.graph.inputs)
        raise TraceError(
            f"the network takes {len(graph.graph.inputs)} inputs ({names}); one batch of images is supported"
        )
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


def _reason(error: TraceError) -> str:
    return str(error).removeprefix("torch cannot export this network: ")
