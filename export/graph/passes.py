"""Clean-ups of a traced graph: repeated work merged and counted, constants and BatchNorm folded, pooling and resizing portable.

Each step takes a graph (``onnx_ir.Model``), changes it in place and reports what it found. Passes of onnx-ir and onnxscript are
used wherever they exist.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.console.nouns import counted

from .constants import constant
from .cost import Cost, cost, elements, is_parameter, multiply_adds, weight
from .pads import keep_pads, settle_pools
from .sizes import at_size
from .squeezes import settle_squeezes

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Merged:
    """What merging repeated work found.

    Attributes:
        copies: how often the network ran the layers with most of its work on the same data; 1 if it ran them once.
        repeated_layers: number of layers (convolutions, matrix products) that ran more than once.
        before: the cost of the network as its ``forward`` computes it, with the parameters that it stores.
        after: the cost when each value is computed only once.
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
            f"{counted(self.repeated_layers, 'layer')} ran more than once, now once: "
            f"{self.before.multiply_adds / 1e9:.2f} G multiply-adds are {self.after.multiply_adds / 1e9:.2f} G"
        )


def merge_copies(model: ir.Model, size: tuple[int, int] | None = None) -> Merged:
    """Merge nodes that compute the same value, weights of equal content included, and count what was repeated.

    A backbone that ``forward`` calls once for each head becomes one; so does a backbone copied into each head, as long as the
    weights of the copies are equal to the last bit. Layers with the same weights on different data (a siamese branch) stay.

    Method: common subexpression elimination after removing duplicate constants; afterwards no value is computed twice.

    Args:
        model: as it was traced.
        size: height and width at which the work is counted if the graph leaves them free; None if they are fixed.
    """
    import onnx_ir.passes.common as common
    import onnxscript.optimizer

    settle_squeezes(model)
    settle_pools(model)
    own = sum(elements(value) for value in model.graph.initializers.values() if is_parameter(value))
    onnxscript.optimizer.fold_constants(model)
    common.RemoveUnusedNodesPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _store_in_order(model)
    before = Cost(cost(at_size(model, size).graph).multiply_adds, parameters=own)  # the exporter has added zero biases
    common.DeduplicateHashedInitializersPass()(model)
    uses_before = _uses(model)
    common.CommonSubexpressionEliminationPass()(model)
    uses_after = _uses(model)
    repeats = {name: uses_before[name] // uses for name, uses in uses_after.items()}
    work: Counter[int] = Counter()
    counted = at_size(model, size)
    for node in counted.graph:
        if (value := weight(node)) is not None:
            work[repeats.get(str(value.name), 1)] += multiply_adds(node)
    return Merged(
        copies=work.most_common(1)[0][0] if work else 1,
        repeated_layers=sum(times > 1 for times in repeats.values()),
        before=before,
        after=cost(counted.graph),
    )


def _store_in_order(model: ir.Model) -> None:
    """Copy constants that are views, such as a linear layer's weight that was transposed for a MatMul, to memory of their own."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        if value.const_value is not None and not (array := value.const_value.numpy()).flags.c_contiguous:
            value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)


def _uses(model: ir.Model) -> Counter[str]:
    weights = (weight(node) for node in model.graph)
    return Counter(str(value.name) for value in weights if value is not None)


def clean(model: ir.Model) -> None:
    """Fold constants and BatchNorm into the layers before them, write pooling portably, remove notes and unused nodes."""
    import onnx_ir.passes.common as common
    import onnxscript.optimizer

    onnxscript.optimizer.optimize(model)
    pool_globally(model)
    resize_by_scales(model)
    keep_pads(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveUnusedNodesPass()(model)
    _strip(model)


def pool_globally(model: ir.Model) -> int:
    """Write means over height and width as GlobalAveragePool; return how many there were.

    torch exports ``adaptive_avg_pool2d(x, 1)`` as ReduceMean with its axes as an input, which does not exist below opset 18.
    """
    import onnx_ir as ir

    found = [node for node in model.graph if _is_global_mean(node)]
    for node in found:
        pool = ir.node("GlobalAveragePool", [node.inputs[0]], name=node.name)
        output, old = pool.outputs[0], node.outputs[0]
        output.shape, output.type = old.shape, old.type
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [pool], [old], [output])
    return len(found)


def resize_by_scales(model: ir.Model) -> int:
    """Give each ``Resize`` to a whole multiple of its input's size a constant scale; return how many there were.

    torch exports ``interpolate(x, size=...)`` with the sizes, which are computed in the graph if the batch or the image size is
    free. A whole scale gives the same result to the last bit (PyTorch divides the sizes too) and leaves no arithmetic on shapes.
    Other ratios keep their sizes: a scale rounded to float32 could lose a row.
    """
    found = 0
    for node in list(model.graph):
        ratios = _whole_ratios(node)
        if ratios is None:
            continue
        scales = constant(model, f"{node.outputs[0].name}_scales", np.array([1, 1, *ratios], np.float32))
        node.resize_inputs(3)
        node.replace_input_with(2, scales)
        found += 1
    return found


def _whole_ratios(node: ir.Node) -> list[int] | None:
    """Return the whole factors by which a Resize with given sizes multiplies height and width; None: there are none."""
    if node.domain or node.op_type != "Resize" or len(node.inputs) < 4 or node.inputs[3] is None:
        return None
    if node.attributes.get_int("antialias", 0) or "axes" in node.attributes or node.inputs[0] is None:
        return None
    before, after = node.inputs[0].shape, node.outputs[0].shape
    if before is None or after is None or len(before) != 4 or len(after) != 4 or before[1] != after[1]:
        return None
    ratios = [_whole_ratio(old, new) for old, new in zip(before[2:], after[2:], strict=True)]
    return [ratio for ratio in ratios if ratio is not None] if None not in ratios else None


def _whole_ratio(before: object, after: object) -> int | None:
    """Divide two sizes, numbers or the exporter's ``8*s39``; None if the result is not a whole number."""
    old, new = _factor(before), _factor(after)
    if old is None or new is None or old[1] != new[1] or new[0] % old[0]:
        return None
    return new[0] // old[0]


def _factor(size: object) -> tuple[int, str] | None:
    if isinstance(size, int):
        return size, ""
    match = re.fullmatch(r"(?:(\d+)\*)?([A-Za-z_]\w*)", str(size))
    return None if match is None else (int(match[1] or 1), match[2])


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
    """Write the shape and type of every value for which they can be inferred."""
    import onnx_ir.passes.common as common

    common.ShapeInferencePass()(model)


def _strip(model: ir.Model) -> None:
    """Remove the exporter's notes (stack traces with the user's paths among them) from nodes and values."""
    import onnx_ir.passes.common as common

    common.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    for value in model.graph.inputs:
        value.metadata_props.clear()
