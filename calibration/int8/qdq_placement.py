"""Where Q/DQ go in a graph, in two styles, one for each of the libraries that run it.

``tensorrt``: on the inputs of weighted layers, and only on the skip branch of a residual sum; the builder fuses the nodes between
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html, "Q/DQ Layer-Placement
Recommendations"). ``cpu``: around each operator that ONNX Runtime has an integer kernel for, end to end
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.typed import is_float, prepared
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.onnx_format.border import of_border
from mtl_deploy.runtime.onnx_format.weighted import is_weighted

from .integer_regions import Regions
from .processor_form import in_processor_form
from .residual import skip_branch
from .weighted import last_of_heads, obstacle

Style = Literal["tensorrt", "cpu"]
STYLES: tuple[Style, ...] = ("tensorrt", "cpu")


@dataclass(frozen=True)
class Edge:
    """One input of a node that gets Q/DQ.

    Attributes:
        node: its name.
        position: of the input.
        tensor: the tensor that it reads.
        ranged: the tensor whose range is used: ``tensor`` itself, or the one that nodes made it of by moving values.
    """

    node: str
    position: int
    tensor: str
    ranged: str


@dataclass(frozen=True)
class QdqPlacement:
    """Where Q/DQ go.

    Attributes:
        style: ``tensorrt`` or ``cpu``.
        nodes: the weighted nodes that compute in INT8, in the graph's order.
        edges: the inputs of nodes that get Q/DQ; those that read the same tensor share them.
        kept: by name of a weighted node that does not compute in INT8, the reason.
    """

    style: Style
    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    kept: dict[str, str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The activations that need a range."""
        return tuple(dict.fromkeys(edge.ranged for edge in self.edges))


def place(model: onnx.ModelProto, style: str, skip: Collection[str] = (), *, heads: bool = False) -> QdqPlacement:
    """Choose where Q/DQ go.

    Args:
        model: an FP32 graph, opset 13 or higher. It is not changed.
        style: ``tensorrt`` or ``cpu``.
        skip: names of weighted nodes that stay in higher precision.
        heads: whether the last weighted layer of each head becomes INT8 as well.

    Raises:
        OptionError: there is no such style, or a name in ``skip`` is not a weighted node of the graph.
    """
    if style not in STYLES:
        raise OptionError(f"there is no Q/DQ style {style!r}; the styles are {', '.join(STYLES)}")
    graph = (in_processor_form(model) if style == "cpu" else prepared(model)).graph
    weighted = [node for node in graph if is_weighted(node.op_type) and not of_border(node.name)]
    unknown = set(skip) - {str(node.name) for node in weighted}
    if unknown:
        known = ", ".join(str(node.name) for node in weighted[:3])
        raise OptionError(f"{sorted(unknown)[0]!r} is not a weighted layer of the graph; its layers are {known}, ...")
    last = set() if heads else last_of_heads(graph)
    kept: dict[str, str] = {}
    quantized: list[ir.Node] = []
    for node in weighted:
        reason = obstacle(node, integer_bias=style == "cpu")
        if reason is None and node.name in skip:
            reason = "left in higher precision on request"
        if reason is None and node in last:
            reason = "last weighted layer of a head: its output is read as it is"
        if reason is None:
            quantized.append(node)
        else:
            kept[str(node.name)] = reason
    uses = _cpu(graph, quantized) if style == "cpu" else _tensorrt(graph, quantized)
    edges = tuple(
        Edge(str(node.name), position, str(value.name), str(ranged.name)) for node, position, value, ranged in uses
    )
    return QdqPlacement("cpu" if style == "cpu" else "tensorrt", tuple(str(n.name) for n in quantized), edges, kept)


def quantizable(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the weighted nodes that compute in INT8 in at least one style, in the graph's order.

    With all of them in ``skip``, no layer of either graph is INT8.
    """
    chosen = {name for style in STYLES for name in place(model, style).nodes}
    return tuple(str(node.name) for node in prepared(model).graph if node.name in chosen)


Uses = list[tuple[ir.Node, int, ir.Value, ir.Value]]


def _tensorrt(graph: ir.Graph, quantized: list[ir.Node]) -> Uses:
    chosen = set(quantized)
    found: Uses = []
    for node in graph:
        position = 0 if node in chosen else skip_branch(node, chosen)
        if position is None:
            continue
        value = node.inputs[position]
        if is_float(value):
            found.append((node, position, value, value))
    return found


def _cpu(graph: ir.Graph, quantized: list[ir.Node]) -> Uses:
    regions = Regions(graph, quantized)
    found: Uses = []
    for value in regions.tensors():
        for reader, position in value.uses():
            if reader.graph is graph and (regions.is_integer(reader) or regions.is_computed(value)):
                found.append((reader, position, value, regions.source(value)))
    return found
