"""Proof that an FP16 graph is its FP32 graph, typed otherwise: what was shown of the one in float32 then holds for the other.

An FP16 graph is verified twice, with its rounding and without. Without it, computed in float32 on the weights that it was made
from, it should be the FP32 graph itself: the same operators, with the same attributes, on the same tensors. That is shown by value
numbering: two outputs are the same if they have one number. Casts between float types are looked through, since in float32 they do
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_Number = tuple[object, ...]


def same_but_for_types(half: onnx.ModelProto, single: onnx.ModelProto, weight: Callable[[str], str | None]) -> bool:
    """Return whether two graphs have the same inputs and outputs, and compute them in the same way but for FP16.

    Args:
        half: an FP16 graph; the types of its tensors are written in it.
        single: the FP32 graph that it was made from; it may lack its weights.
        weight: returns what a weight of either graph is called in the FP32 graph; None: it is no weight. That they have the values
            that they should is shown elsewhere.
    """
    numbers: dict[_Number, int] = {}
    try:
        found = _Numbers(half, weight, numbers).outputs()
        return found == _Numbers(single, weight, numbers).outputs()
    except _UnknownError:
        return False


class _UnknownError(Exception):
    """A graph has something that numbers do not describe."""


class _Numbers:
    def __init__(
        self, model: onnx.ModelProto, weight: Callable[[str], str | None], numbers: dict[_Number, int]
    ) -> None:
        self._model, self._weight, self._numbers = model, weight, numbers
        graph = model.graph
        if graph.sparse_initializer or model.functions:
            raise _UnknownError
        self._types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        self._types |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
        self._types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self._by_name: dict[str, int] = {"": -1}

    def outputs(self) -> tuple[object, ...]:
        """Return what the graph takes, gives and rests on, with a number for how each output comes about."""
        graph = self._model.graph
        for value in graph.input:
            self._by_name[value.name] = self._number("input", value.SerializeToString(deterministic=True))
        for node in graph.node:
            self._visit(node)
        opsets = sorted((each.domain, each.version) for each in self._model.opset_import if each.version)
        found = [(value.SerializeToString(deterministic=True), self._of(value.name)) for value in graph.output]
        return (tuple(self._by_name[value.name] for value in graph.input), tuple(found), tuple(opsets))

    def _visit(self, node: onnx.NodeProto) -> None:
        import onnx

        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise _UnknownError
        if node.op_type == "Cast" and not node.domain:
            to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
            if to in floats:
                if self._types.get(node.input[0]) in floats:
                    self._by_name[node.output[0]] = self._of(node.input[0])
                    return
                attributes = [b"to a float"]
        given = tuple(self._of(name) for name in node.input)
        for place, name in enumerate(node.output):
            self._by_name[name] = self._number(node.domain, node.op_type, tuple(attributes), given, place)

    def _of(self, name: str) -> int:
        if name in self._by_name:
            return self._by_name[name]
        if (known := self._weight(name)) is None:
            raise _UnknownError
        return self._number("weight", known)

    def _number(self, *what: object) -> int:
        return self._numbers.setdefault(what, len(self._numbers))
