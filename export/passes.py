"""Clean-ups of a traced graph: repeated work merged and counted, constants and BatchNorm folded, pooling made portable.

Each step takes a graph (``onnx_ir.Model``), changes it in place and says what it found. The passes are onnx-ir's and
onnxscript's where they have them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .cost import Cost, cost, elements, is_parameter, multiply_adds, weight

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Merged:
    """What merging repeated work found.

    Attributes:
        copies: how often the network ran, on the same data, the layers that hold most of its work; 1 where it ran them once.
        repeated_layers: number of layers (convolutions, matrix products) that ran more than once.
        before: the cost of the network as its ``forward`` computes it, with the parameters that it stores.
        after: the cost once each value is computed once.
    """

    copies: int
    repeated_layers: int
    before: Cost
    after: Cost

    @property
    def description(self) -> str:
        """For people: what was merged and what it saves."""
        if self.repeated_layers == 0:
            return "no work was repeated"
        return (
            f"{self.repeated_layers} layers ran more than once, now once: "
            f"{self.before.multiply_adds / 1e9:.2f} G multiply-adds are {self.after.multiply_adds / 1e9:.2f} G"
        )


def merge_copies(model: ir.Model) -> Merged:
    """Merge nodes that compute the same value, weights of equal content included, and count what was repeated.

    A backbone that ``forward`` calls once a head becomes one; so does a backbone copied into each head, as long as the copies'
    weights are equal to the last bit. Layers with the same weights on different data (a siamese branch) stay.

    Method: common subexpression elimination after removing duplicate constants; what is left computes no value twice.
    """
    import onnx_ir.passes.common as common
    import onnxscript.optimizer

    own = sum(elements(value) for value in model.graph.initializers.values() if is_parameter(value))
    onnxscript.optimizer.fold_constants(model)
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    before = Cost(cost(model.graph).multiply_adds, parameters=own)  # the exporter has added biases of zero by now
    common.DeduplicateHashedInitializersPass()(model)
    uses_before = _uses(model)
    common.CommonSubexpressionEliminationPass()(model)
    uses_after = _uses(model)
    repeats = {name: uses_before[name] // uses for name, uses in uses_after.items()}
    work: Counter[int] = Counter()
    for node in model.graph:
        if (value := weight(node)) is not None:
            work[repeats[str(value.name)]] += multiply_adds(node)
    return Merged(
        copies=work.most_common(1)[0][0] if work else 1,
        repeated_layers=sum(times > 1 for times in repeats.values()),
        before=before,
        after=cost(model.graph),
    )


def _uses(model: ir.Model) -> Counter[str]:
    weights = (weight(node) for node in model.graph)
    return Counter(str(value.name) for value in weights if value is not None)


def clean(model: ir.Model) -> None:
    """Fold constants and BatchNorm into the layers before them, write pooling portably, drop notes and what is unused."""
    import onnx_ir.passes.common as common
    import onnxscript.optimizer

    onnxscript.optimizer.optimize(model)
    pool_globally(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    _strip(model)


def pool_globally(model: ir.Model) -> int:
    """Write means over height and width as GlobalAveragePool; return how many there were.

    torch exports ``adaptive_avg_pool2d(x, 1)`` as ReduceMean with its axes as an input, which no opset below 18 has.
    """
    import onnx_ir as ir

    found = [node for node in model.graph if _is_global_mean(node)]
    for node in found:
        pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
        output, old = pool.outputs[0], node.outputs[0]
        output.shape, output.type = old.shape, old.type
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [pool], [old], [output])
    return len(found)


def _is_global_mean(node: ir.Node) -> bool:
    import onnx_ir as ir

    if node.domain or node.op_type != "ReduceMean" or len(node.inputs) != 2 or node.inputs[0] is None:
        return False
    shape, axes = (
        node.inputs[0].shape,
        None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1]),
    )
    keepdims = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    if shape is None or len(shape) != 4 or axes is None or not keepdims:
        return False
    return sorted(int(axis) % 4 for axis in np.asarray(axes.numpy()).ravel()) == [2, 3]


def infer_shapes(model: ir.Model) -> None:
    """Write the shape and type of every value that can be inferred."""
    import onnx_ir.passes.common as common

    common.ShapeInferencePass()(model)


def _strip(model: ir.Model) -> None:
    """Remove the exporter's notes (stack traces with the user's paths among them) from nodes and values."""
    import onnx_ir.passes.common as common

    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    for value in model.graph.inputs:
        value.metadata_props.clear()
