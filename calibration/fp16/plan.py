"""Which nodes of a graph become FP16 and which stay in FP32, and why. ``docs/fp16.md`` gives the sources of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from mtl_deploy.calibration.graph.expectation import is_expectation
from mtl_deploy.calibration.graph.typed import is_float
from mtl_deploy.calibration.observe.statistics import TensorStatistics
from mtl_deploy.runtime.onnx_format.border import of_border
from mtl_deploy.runtime.onnx_format.weighted import WEIGHTED, is_weighted

FP16_MAX = float(np.finfo(np.float16).max)
FP16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
FP16_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)

MARGIN = 2.0
"""Other images may have larger values than those observed, and FP16 partial sums may be larger than their result."""

LONGEST_SUM = 1024
"""Largest number of terms. FP16 has 11 bits: a running sum of equal terms stops growing at 2048 of them; the margin is a half."""

STEPS = 512
"""FP16 steps that a map's values must span for its last layer to be FP16: its error is then at most a thousandth of the span."""

SENSITIVE = frozenset(
    (
        *("Exp", "Log", "LogSoftmax", "Mish", "Pow", "Reciprocal", "Softmax", "Softplus"),
        *("Acos", "Acosh", "Asin", "Asinh", "Atanh", "Cosh", "Sinh", "Tan"),
        *("GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"),
        *("Attention", "LinearAttention"),  # their products are inside, where their range is not observed
        *("LRN", "LpNormalization", "MeanVarianceNormalization", "CumSum", "GlobalLpPool", "LpPool"),
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"),
    )
)
"""ONNX's operators for what PyTorch's autocast runs in FP32, and the attention operator, which contains a softmax."""

_SUMS = frozenset(("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"))


@dataclass(frozen=True)
class Overflow:
    """A tensor that would be FP16 if its values were in FP16's range.

    Attributes:
        tensor: its name.
        node: the node that computes it; for a weight or the graph's input, the first node that uses it.
        kind: ``activation`` or ``weight``.
        absmax: the largest magnitude, observed or stored; infinity if an observed value was NaN or infinite.
    """

    tensor: str
    node: str
    kind: Literal["activation", "weight"]
    absmax: float


@dataclass(frozen=True)
class TypePlan:
    """The precision of each node that computes with floats.

    Attributes:
        half: the nodes that become FP16, each with the positions of the inputs that become FP16.
        kept: the nodes that stay in FP32, each with the reason.
        overflows: the tensors whose values keep a node in FP32.
    """

    half: dict[ir.Node, frozenset[int]]
    kept: dict[ir.Node, str]
    overflows: list[Overflow]


def plan_half(
    graph: ir.Graph, statistics: Mapping[str, TensorStatistics], keep: Mapping[str, str] | None = None
) -> TypePlan:
    """Choose the precision of each node.

    Args:
        graph: with types on its values and constants lifted to initializers. What resizes a camera's frames in it stays as it is.
        statistics: by tensor, see :func:`~mtl_deploy.calibration.observe.statistics.observe`; the values of a tensor without
            statistics do not count.
        keep: by name of a further node that stays in FP32, the reason.
    """
    floats = (node for node in graph if any(is_float(value) for value in (*node.inputs, *node.outputs)))
    nodes = [node for node in floats if not of_border(node.name)]
    plan = TypePlan({node: _fp16_inputs(node) for node in nodes}, {}, [])
    _keep(plan, _before_weights(graph))
    _keep(plan, _heads(graph, _maps(graph, statistics)))
    _keep(plan, ((node, f"{node.op_type} has no FP16 form") for node, inputs in plan.half.items() if not inputs))
    _keep(plan, _borders(plan.half))
    _keep(plan, _sensitive(plan.half, statistics))
    _keep_out_of_range(plan, graph, statistics)
    _keep(plan, ((node, keep[str(node.name)]) for node in nodes if keep and str(node.name) in keep))
    _keep(plan, _enclosed(plan))
    return plan


def _keep(plan: TypePlan, reasons: Iterable[tuple[ir.Node, str]]) -> None:
    for node, reason in list(reasons):
        if plan.half.pop(node, None) is not None:
            plan.kept[node] = reason


def _fp16_inputs(node: ir.Node) -> frozenset[int]:
    """Find the inputs that must be FP16 so that the node's float outputs are; none if they cannot be.

    ONNX's schemas decide: in ``Resize``, the image may be FP16, the scales may not.
    """
    assert node.graph is not None  # a node of a model lies in a graph
    try:
        schema = onnx.defs.get_schema(node.op_type, node.graph.opset_imports[node.domain], node.domain)
    except (KeyError, onnx.defs.SchemaError):
        return frozenset()  # a plugin's, or a function of the model
    half = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}
    inputs = {i: _parameter(schema.inputs, i) for i, value in enumerate(node.inputs) if is_float(value)}
    outputs = {_parameter(schema.outputs, i) for i, value in enumerate(node.outputs) if is_float(value)}
    if not outputs <= half.intersection(inputs.values()):
        return frozenset()
    return frozenset(i for i, parameter in inputs.items() if parameter in half)


def _parameter(formal: Sequence[onnx.defs.OpSchema.FormalParameter], position: int) -> str:
    return formal[min(position, len(formal) - 1)].type_str  # the last one may stand for many


def _before_weights(graph: ir.Graph) -> Iterator[tuple[ir.Node, str]]:
    """Find the preprocessing of the image, and arithmetic on shapes and masks."""
    raw: set[ir.Value | None] = set(graph.inputs)
    for node in graph:
        data = [value for value in node.inputs if is_float(value) and not value.is_initializer()]
        if raw.issuperset(data) and (not is_weighted(node.op_type) or of_border(node.name)):
            raw.update(node.outputs)
            yield node, "comes before any weighted layer"


def _maps(graph: ir.Graph, statistics: Mapping[str, TensorStatistics]) -> set[ir.Node]:
    """Find, in heads of maps, last weighted layers whose values FP16 resolves, and nodes that lead only to class indices.

    A map's head works at every pixel, so its last layer is not as small as that of a vector.
    """
    found: set[ir.Node] = set()
    to_outputs: dict[ir.Node, bool] = {}  # whether all outputs of the graph that a node leads to are maps
    to_classes: dict[ir.Node, bool] = {}  # whether every path from a node ends in an ArgMax
    for node in reversed(graph):
        own = [output for output in node.outputs if output.is_graph_output()]
        followers = node.successors()
        to_outputs[node] = (
            node.op_type != "TopK"  # places of peaks: rounding makes pixels of a heatmap equal that are not
            and all(_is_map(output) for output in own)
            and all(to_outputs.get(n, False) for n in followers)
        )
        to_classes[node] = node.op_type == "ArgMax" or (
            not own and bool(followers) and all(to_classes.get(follower, False) for follower in followers)
        )
        if not to_outputs[node]:
            continue
        if to_classes[node] or (_is_layer(node) and _finely_stepped(node.outputs[0], statistics)):
            found.add(node)
    return found


def _is_map(output: ir.Value) -> bool:
    return output.shape is not None and len(output.shape) >= 3


def _finely_stepped(value: ir.Value, statistics: Mapping[str, TensorStatistics]) -> bool:
    """Return whether FP16's step at a tensor's largest magnitude is small compared with the span of its values."""
    seen = statistics.get(str(value.name))
    if seen is None or not 0 < seen.absmax < FP16_MAX:
        return False
    step = float(np.spacing(np.float16(seen.absmax)))
    return step * STEPS <= seen.maximum - seen.minimum


def _heads(graph: ir.Graph, maps: set[ir.Node]) -> Iterator[tuple[ir.Node, str]]:
    layers = {node for node in graph if _is_layer(node)}
    leads_to_weights: set[ir.Node] = set()
    for node in reversed(graph):
        if any(follower in leads_to_weights or follower in layers for follower in node.successors()):
            leads_to_weights.add(node)
        elif node in maps:
            continue
        elif node in layers:
            yield node, "last weighted layer of a head: FP16 would round its output to 11 bits"
        else:
            yield node, "follows the last weighted layer of a head"


def _is_layer(node: ir.Node) -> bool:
    """Whether a node is a weighted layer, which a fixed expectation is not, see :mod:`mtl_deploy.calibration.graph.expectation`."""
    return is_weighted(node.op_type) and not is_expectation(node)


def _borders(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, str]]:
    for node in nodes:
        if any(output.is_graph_output() for output in node.outputs):
            yield node, "gives an output of the graph"
        elif any(follower.graph is not node.graph for follower in node.successors()):
            yield node, "is used inside a subgraph"


def _sensitive(nodes: Iterable[ir.Node], statistics: Mapping[str, TensorStatistics]) -> Iterator[tuple[ir.Node, str]]:
    for node in nodes:
        if node.op_type in SENSITIVE:
            yield node, f"{node.op_type} loses accuracy or range in FP16"
        elif node.op_type in _SUMS and (data := node.inputs[0]) is not None:
            terms, absmax = _terms(node, data), _observed(data, statistics)
            if terms is None:
                yield node, "sums a number of values that is not known"
            elif terms > LONGEST_SUM:
                yield node, f"sums {terms} values"
            elif terms * absmax * MARGIN > FP16_MAX:
                yield node, f"sums {terms} values of up to {absmax:.4g}"


def _terms(node: ir.Node, data: ir.Value) -> int | None:
    """Count the terms of each sum that a node computes; None if they depend on the input's size."""
    if node.op_type == "AveragePool":
        return prod(node.attributes["kernel_shape"].as_ints())
    if data.shape is None:
        return None
    axes = range(2, len(data.shape)) if node.op_type == "GlobalAveragePool" else _axes(node, len(data.shape))
    sizes = [size for size in (data.shape[axis] for axis in axes) if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(axes) else None


def _axes(node: ir.Node, rank: int) -> Sequence[int]:
    if "axes" in node.attributes:
        return node.attributes["axes"].as_ints()
    given = node.inputs[1] if len(node.inputs) > 1 else None
    constant = given.const_value if given is not None else None
    return range(rank) if constant is None else [int(axis) for axis in constant.numpy().ravel()]


def _keep_out_of_range(plan: TypePlan, graph: ir.Graph, statistics: Mapping[str, TensorStatistics]) -> None:
    half = dict(plan.half)
    for value in _float_values(graph):
        touched = [node for node, position in value.uses() if position in half.get(node, ())]
        producer = value.producer()
        if producer in half:
            touched.insert(0, producer)
        if not touched:
            continue
        kind, absmax, low, high = _range(value, statistics)
        if absmax > high:
            plan.overflows.append(Overflow(str(value.name), str((producer or touched[0]).name), kind, absmax))
            _keep(plan, [(node, f"{kind} {value.name} overflows FP16 ({absmax:.4g})") for node in touched])
        elif 0 < absmax < low and not _is_lost_beside(value, absmax, statistics):
            _keep(plan, [(node, f"{kind} {value.name} vanishes in FP16 ({absmax:.4g})") for node in touched])


def _is_lost_beside(value: ir.Value, absmax: float, statistics: Mapping[str, TensorStatistics]) -> bool:
    """Return whether a tensor is a bias that is lost in FP16 when it is added, in whatever type it is stored.

    Folded BatchNorm leaves such biases if a channel's mean is zero except for float32's rounding. Half a step is taken in FP16 too,
    where half the smallest step is 0: beside values as small as that, no bias counts as lost.
    """
    readers = value.uses()
    return bool(readers) and all(
        (operator := WEIGHTED.get(node.op_type)) is not None
        and position == operator.bias
        and absmax < np.float16(np.spacing(np.float16(min(_observed(node.outputs[0], statistics), FP16_MAX))) / 2)
        for node, position in readers
    )


def _range(
    value: ir.Value, statistics: Mapping[str, TensorStatistics]
) -> tuple[Literal["activation", "weight"], float, float, float]:
    """Return what a tensor is, its largest magnitude, and the limits between which FP16 can hold it."""
    if value.const_value is None:
        return "activation", _observed(value, statistics), FP16_SMALLEST_NORMAL, FP16_MAX / MARGIN
    weight = value.const_value.numpy()
    magnitudes = np.abs(weight[np.isfinite(weight)])  # FP16 has infinity too, which masks of attention use
    # A kernel needs all its digits; a bias or an epsilon must only not become zero.
    low = FP16_SMALLEST_NORMAL if weight.ndim > 1 else FP16_SMALLEST / 2
    return "weight", float(magnitudes.max(initial=0)), low, FP16_MAX


def _float_values(graph: ir.Graph) -> list[ir.Value]:
    computed = (output for node in graph for output in node.outputs)
    return [value for value in (*graph.inputs, *graph.initializers.values(), *computed) if is_float(value)]


def _observed(value: ir.Value, statistics: Mapping[str, TensorStatistics]) -> float:
    seen = statistics.get(str(value.name))
    return 0.0 if seen is None else seen.absmax


def _enclosed(plan: TypePlan) -> Iterator[tuple[ir.Node, str]]:
    """Find groups of cheap operations between FP32 nodes only: with two casts around them they would gain nothing."""
    island = {node for node in plan.half if not is_weighted(node.op_type)}
    while True:
        inside = {node for node in island if _is_enclosed(node, island | plan.kept.keys())}
        if inside == island:
            break
        island = inside
    return ((node, "lies between nodes that stay in FP32") for node in plan.half if node in island)


def _is_enclosed(node: ir.Node, allowed: set[ir.Node]) -> bool:
    feeding = [value.producer() for value in node.inputs if is_float(value) and not value.is_initializer()]
    using = node.successors()
    return bool(feeding and using) and all(other in allowed for other in (*feeding, *using))
