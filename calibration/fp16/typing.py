"""The typed FP16 graph: tensors are FP16 between explicit casts, and nodes that need FP32 stay in FP32.

TensorRT builds a strongly typed engine of such a graph: the graph's types are the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnx_ir.passes.common

from mtl_deploy.calibration.graph.typed import is_float, prepared
from mtl_deploy.calibration.observe.statistics import TensorStatistics

from .joins import joining
from .plan import FP16_SMALLEST_NORMAL, Overflow, TypePlan, plan_half

_FP16, _FP32 = ir.DataType.FLOAT16, ir.DataType.FLOAT
_NAMES = {_FP16: "fp16", _FP32: "fp32"}
_EXACT_IN_FP16 = frozenset((ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.BOOL, _FP16))


@dataclass(frozen=True)
class RoundedWeight:
    """A weight with elements that lost more than FP16's usual rounding.

    Attributes:
        tensor: its name.
        size: number of elements.
        zeroed: number of elements that became zero (below 3e-8).
        subnormal: number of other elements below 6.1e-5, which keep fewer than FP16's 11 bits.
    """

    tensor: str
    size: int
    zeroed: int
    subnormal: int


@dataclass(frozen=True)
class HalfResult:
    """A typed FP16 graph and the decisions behind it.

    Attributes:
        model: the graph; its inputs, outputs and their types are those of the FP32 graph.
        converted: number of nodes that compute in FP16.
        half: their names.
        joins: those of them that join branches, see :func:`~mtl_deploy.calibration.fp16.joins.joining`.
        kept: by name of a node that computes in FP32, the reason.
        overflows: tensors that FP16 cannot hold, which keep nodes in FP32.
        weights: FP16 weights with elements below FP16's normal range, the most affected first.
    """

    model: onnx.ModelProto
    converted: int
    half: tuple[str, ...]
    joins: tuple[str, ...]
    kept: dict[str, str]
    overflows: tuple[Overflow, ...]
    weights: tuple[RoundedWeight, ...]

    @property
    def description(self) -> str:
        """One line for people."""
        parts = [f"{self.converted} of {self.converted + len(self.kept)} operations in FP16"]
        parts += [f"{item.kind} {item.tensor} overflows ({item.absmax:.4g})" for item in self.overflows[:3]]
        if len(self.overflows) > 3:
            parts.append(f"{len(self.overflows) - 3} more overflow")
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict without the graph, with the totals of the weights and the ten most affected ones.

        An ``absmax`` of None means that values were NaN or infinite.
        """
        return {
            "summary": self.description,
            "converted": self.converted,
            "kept": self.kept,
            "overflows": [
                {**asdict(overflow), "absmax": overflow.absmax if isfinite(overflow.absmax) else None}
                for overflow in self.overflows
            ],
            "weights": {
                "zeroed": sum(weight.zeroed for weight in self.weights),
                "subnormal": sum(weight.subnormal for weight in self.weights),
                "worst": [asdict(weight) for weight in self.weights[:10]],
            },
        }


def to_half(
    model: onnx.ModelProto,
    statistics: Mapping[str, TensorStatistics],
    keep: Mapping[str, str] | None = None,
    rounded: Mapping[str, npt.NDArray[np.float16]] | None = None,
) -> HalfResult:
    """Make the typed FP16 graph of an FP32 graph.

    Args:
        model: FP32, opset 13 or higher. It is not changed.
        statistics: of its tensors on real images, see :func:`~mtl_deploy.calibration.observe.statistics.observe`.
        keep: by name of a further node that stays in FP32, the reason.
        rounded: by name of a weight, its values where it becomes FP16, see
            :func:`~mtl_deploy.calibration.fp16.rounding.choose_rounding`; other weights are rounded to nearest.
    """
    graph = prepared(model)
    plan = plan_half(graph.graph, statistics, keep or {})
    joins = tuple(str(node.name) for node in joining(plan))
    weights = _Typing(graph.graph, plan, rounded or {}).apply()
    ir.passes.common.RemoveUnusedNodesPass()(graph)
    weights.sort(key=lambda weight: (-weight.zeroed, -weight.subnormal))
    return HalfResult(
        model=ir.to_proto(graph),
        converted=len(plan.half),
        half=tuple(str(node.name) for node in plan.half),
        joins=joins,
        kept={str(node.name): plan.kept[node] for node in graph.graph if node in plan.kept},
        overflows=tuple(plan.overflows),
        weights=tuple(weights),
    )


class _Typing:
    """Writes a plan's types into a graph, with one cast or one FP16 copy per tensor, however many nodes use it."""

    def __init__(self, graph: ir.Graph, plan: TypePlan, rounded: Mapping[str, npt.NDArray[np.float16]]) -> None:
        self._graph = graph
        self._plan = plan
        self._chosen = rounded
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._rounded: list[RoundedWeight] = []

    def apply(self) -> list[RoundedWeight]:
        floats = [
            (node, position, value)
            for node in self._graph
            for position, value in enumerate(node.inputs)
            if is_float(value)
        ]
        for node in self._plan.half:
            for output in node.outputs:
                if is_float(output):
                    output.type = ir.TensorType(_FP16)
        for node, position, value in floats:
            half = position in self._plan.half.get(node, ())
            node.replace_input_with(position, self._as(value, _FP16 if half else _FP32))
        return self._rounded

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        if value.dtype == wanted:
            return value
        key = value, wanted
        if key not in self._converted:
            self._converted[key] = self._weight(value) if value.is_initializer() else self._cast(value, wanted)
        return self._converted[key]

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        producer = value.producer()
        source = value
        if producer is not None and producer.op_type == "Cast":
            origin = producer.inputs[0]
            if origin is not None and origin.dtype in _EXACT_IN_FP16:
                source = origin  # one cast of the pixels instead of a chain of two
        if source.dtype == wanted:
            return source
        name = f"{value.name}/{_NAMES[wanted]}"
        output = ir.Value(name=name, type=ir.TensorType(wanted), shape=value.shape)
        cast = ir.node("Cast", [source], {"to": wanted}, name=name, outputs=[output])
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return output

    def _weight(self, value: ir.Value) -> ir.Value:
        """Store a weight as FP16: in place of it, or beside it if FP32 nodes use it too."""
        assert value.const_value is not None  # an initializer's
        weight = value.const_value.numpy()
        half = self._chosen.get(str(value.name), weight.astype(np.float16))
        small = np.abs(half) < FP16_SMALLEST_NORMAL
        zeroed = int(np.count_nonzero((half == 0) & (weight != 0)))
        subnormal = int(np.count_nonzero(small & (half != 0)))
        if zeroed or subnormal:
            self._rounded.append(RoundedWeight(str(value.name), weight.size, zeroed, subnormal))
        alone = all(position in self._plan.half.get(node, ()) for node, position in value.uses())
        name = str(value.name) if alone else f"{value.name}/fp16"
        tensor = ir.tensor(half, name=name)
        if alone:
            value.const_value, value.type = tensor, ir.TensorType(_FP16)
            return value
        copy = ir.Value(name=name, type=ir.TensorType(_FP16), shape=value.shape, const_value=tensor)
        self._graph.register_initializer(copy)
        return copy
