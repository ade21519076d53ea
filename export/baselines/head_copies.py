"""Copies of one head in a graph, each with slightly different weights, so that no optimizer merges them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtl_deploy.export.graph.borders import LOGITS_SUFFIX
from mtl_deploy.export.graph.split import ancestors
from mtl_deploy.runtime.errors import TraceError
from mtl_deploy.runtime.onnx_format.weighted import WEIGHTED

if TYPE_CHECKING:
    import onnx_ir as ir

_NOISE = 0.01  # relative to a weight: it makes copies differ and keeps them in the range of their type
_FLIPPED = 0.05  # share of quantized weights that move by one step
_RAW_SUFFIX = "_raw"
_ON_WEIGHTS = ("QuantizeLinear", "DequantizeLinear", "Cast")  # may stand between a weight and its layer


def copy_heads(model: ir.Model, task: str, names: Sequence[str], seed: int) -> None:
    """Replace all heads of a graph with copies of one of them, in place.

    The copies keep types and Q/DQ nodes. Their floating-point weights differ by 1 % noise, their quantized weights by one step in
    5 % of the elements.

    Args:
        model: the graph.
        task: the output whose head is copied: the nodes that no other output needs.
        names: of the copies, which become the graph's outputs.
        seed: for the differences.

    Raises:
        TraceError: the head has control flow.
    """
    import onnx_ir.passes.common as common

    needed = {str(output.name): ancestors([output]) for output in model.graph.outputs}
    others = {node for name, nodes in needed.items() if name != task for node in nodes}
    own = [node for node in model.graph if node in needed[task] and node not in others]
    trunk = [node for node in needed[task] if node in others]
    output = next(value for value in model.graph.outputs if value.name == task)
    rng = np.random.default_rng(seed)
    model.graph.outputs[:] = [_Copy(model, task, name, rng).make(own, trunk, output) for name in names]
    common.RemoveUnusedNodesPass()(model)


class _Copy:
    """Adds one copy of a head to a graph.

    Args:
        model: the graph, which also holds the original.
        old: task of the original.
        new: task of the copy.
        rng: for the noise.
    """

    def __init__(self, model: ir.Model, old: str, new: str, rng: np.random.Generator) -> None:
        self._graph, self._old, self._new, self._rng = model.graph, old, new, rng
        self._values: dict[ir.Value, ir.Value] = {}

    def make(self, nodes: Sequence[ir.Node], trunk: Sequence[ir.Node], output: ir.Value) -> ir.Value:
        """Add copies of the head's nodes, and of constants that the trunk does not read; return the copied output."""
        import onnx_ir as ir

        common = {value for node in trunk for value in node.inputs if value is not None}
        for position, node in enumerate(nodes):
            if any(
                attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
                for attribute in node.attributes.values()
            ):
                raise TraceError(f"node {node.name!r} ({node.op_type}) has control flow, which cannot be copied")
            inputs = [self._input(node, place, value, common) for place, value in enumerate(node.inputs)]
            copy = ir.Node(
                node.domain,
                node.op_type,
                inputs,
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
                version=node.version,
                name=f"{self._new}/{node.name or position}",
            )
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name, new.shape, new.type = self._name(str(old.name)), old.shape, old.type
                self._values[old] = new
            self._graph.append(copy)
        return self._values[output]

    def _input(self, node: ir.Node, place: int, value: ir.Value | None, common: set[ir.Value]) -> ir.Value | None:
        if value is None or value in self._values:
            return None if value is None else self._values[value]
        if not value.is_initializer() or value in common:
            return value
        operator = None if node.domain else WEIGHTED.get(node.op_type)
        weight = (operator is not None and operator.may_be_parameter(place)) or (
            node.op_type in _ON_WEIGHTS and place == 0
        )  # not scales, sizes etc.
        copied = self._constant(value, weight=weight)
        self._values[value] = copied
        return copied

    def _constant(self, value: ir.Value, *, weight: bool) -> ir.Value:
        import onnx_ir as ir

        assert value.const_value is not None  # an initializer has one
        array = value.const_value.numpy()
        if weight and array.size > 1:
            array = self._differ(array)
        tensor = ir.Tensor(array, dtype=value.const_value.dtype, name=self._name(str(value.name)))
        made = ir.Value(name=tensor.name, shape=value.shape, type=value.type, const_value=tensor)
        self._graph.register_initializer(made)
        return made

    def _differ(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return slightly different weights of the same type; other constants, such as shapes, unchanged."""
        if array.dtype in (np.float32, np.float16, np.float64):
            noise = 1 + _NOISE * self._rng.standard_normal(array.shape)
            return np.asarray(array * noise, array.dtype)
        if array.dtype in (np.int8, np.uint8):
            limits = np.iinfo(array.dtype)
            moved = self._rng.random(array.shape) < _FLIPPED
            moved.flat[int(self._rng.integers(array.size))] = True
            step = np.where(array.astype(np.int16) > limits.min + 1, -1, 1)  # symmetric ranges do not use -128
            return np.asarray(np.where(moved, array + step, array), array.dtype)
        return array

    def _name(self, name: str) -> str:
        """Return the copy's name for a value: outputs, and the values that they are decoded from, are named after the task."""
        for suffix in ("", LOGITS_SUFFIX, _RAW_SUFFIX):
            if name == self._old + suffix:
                return self._new + suffix
        return f"{self._new}/{name}"
