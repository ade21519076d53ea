"""Graphs with Q/DQ pairs, as training for quantization or another quantizer leaves them: made float again, and their ranges kept.

A pair of QuantizeLinear and DequantizeLinear on an activation says its range, and is removed; weights that are stored as integers
become the floats that they stand for; float weights under a pair stay as they were trained. ONNX Runtime's quantizer drops a Relu
or Clip that the next QuantizeLinear does anyway (onnxruntime/quantization/operators/activation.py), so a pair whose range begins at
zero leaves a Clip where nothing before it keeps values from being negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
_INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32)
_NEVER_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Abs", "Softplus", "Sqrt"}
_KEEPS_SIGN = {
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "Reshape", "Flatten", "Transpose",
    "Squeeze", "Unsqueeze", "Identity", "Concat", "Add", "Mul", "Resize", "Slice", "Split", "Expand", "Dropout",
}  # fmt: skip


@dataclass(frozen=True)
class FloatGraph:
    """A graph without Q/DQ pairs.

    Attributes:
        model: the graph. It still holds what is not understood: integer operators, pairs in subgraphs, float8.
        ranges: by float tensor, the lowest and highest value that its pair represented.
        weights: number of integer weights that became float.
    """

    model: onnx.ModelProto
    ranges: dict[str, tuple[float, float]]
    weights: int


def without_pairs(model: onnx.ModelProto) -> FloatGraph:
    """Remove the Q/DQ pairs of a graph; see :mod:`mtl_deploy.export.network.given.pairs`.

    Args:
        model: any graph; it is not changed. Where it holds no pairs, the result is a copy.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    work = _Work(copy.graph)
    work.run()
    return FloatGraph(copy, work.ranges, work.weights)


@dataclass
class _Work:
    graph: onnx.GraphProto
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    weights: int = 0
    signs: dict[str, bool] = field(default_factory=dict)

    def run(self) -> None:
        graph = self.graph
        self.constants = {one.name: one for one in graph.initializer}
        self.held: dict[str, Array] = {}  # constants that Constant nodes hold
        for node in graph.node:
            if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t"):
                self.held[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        self.producers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in _all_nodes(graph):
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.names = {name for node in _all_nodes(graph) for name in (*node.input, *node.output)}
        self.names |= {*self.constants, *(value.name for value in graph.input)}
        self.clips: dict[tuple[str, tuple[float, float]], str] = {}  # what clips a tensor to these ends
        self.bounds: dict[float, str] = {}
        renamed: dict[str, str] = {}
        gone: set[int] = set()
        added: list[tuple[int, onnx.NodeProto]] = []
        for place, node in enumerate(graph.node):
            if node.op_type == _DQ and not node.domain:
                self._constant(node, gone)
            elif node.op_type == _Q and not node.domain:
                self._pair(place, node, gone, renamed, added)
        for place, extra in reversed(added):
            graph.node.insert(place + 1, extra)
        self._finish(gone, renamed)

    def _constant(self, node: onnx.NodeProto, gone: set[int]) -> None:
        """Make an integer constant behind a DequantizeLinear the float that it stands for."""
        found = self._dequantized(node)
        if found is None:
            return
        self.graph.initializer.append(numpy_helper.from_array(found, node.output[0]))
        self.weights += 1
        gone.add(id(node))

    def _dequantized(self, node: onnx.NodeProto) -> npt.NDArray[np.float32] | None:
        integers, scale = self._value(node.input[0]), self._value(node.input[1])
        zero = self._value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.int32)
        if integers is None or scale is None or zero is None or _blocked(node) or integers.dtype.type not in _INTEGERS:
            return None
        if scale.dtype.type is not np.float32:
            return None
        if scale.size > 1:
            axis = _axis(node) % integers.ndim
            shape = [-1 if place == axis else 1 for place in range(integers.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
        whole = (integers.astype(np.int64) - zero.astype(np.int64)).astype(np.float32)
        return np.asarray(whole * scale, np.float32).reshape(integers.shape)

    def _pair(
        self,
        place: int,
        node: onnx.NodeProto,
        gone: set[int],
        renamed: dict[str, str],
        added: list[tuple[int, onnx.NodeProto]],
    ) -> None:
        source, readers = node.input[0], self.readers.get(node.output[0], [])
        pairs = [reader for reader in readers if reader.op_type == _DQ and not reader.domain]
        if not pairs or len(pairs) < len(readers) or node.output[0] in self.outputs or self._is_float8(node):
            return
        ends = self._ends(node)
        float_source = renamed.get(source, source)
        if ends and self._value(float_source) is None:
            if ends[0] == 0 and not self._never_negative(float_source):
                float_source = self._clipped(float_source, ends, place, added)
            low, high = self.ranges.get(float_source, ends)
            self.ranges[float_source] = min(low, ends[0]), max(high, ends[1])  # of several pairs on it
        for pair in pairs:
            renamed[pair.output[0]] = float_source
            if pair.output[0] in self.outputs:  # which keeps its name
                added.append((place, onnx.helper.make_node("Identity", [float_source], [pair.output[0]])))
        gone.update(map(id, [node, *pairs]))

    def _clipped(
        self, source: str, ends: tuple[float, float], place: int, added: list[tuple[int, onnx.NodeProto]]
    ) -> str:
        """Return what a Clip of a tensor gives: one for all its pairs of this range."""
        if (source, ends) not in self.clips:
            name = self.clips[source, ends] = self._new(f"{source}/clipped")
            inputs = [source, *(self._bound(end) for end in ends)]
            added.append((place, onnx.helper.make_node("Clip", inputs, [name], name)))
        return self.clips[source, ends]

    def _bound(self, value: float) -> str:
        if value not in self.bounds:
            name = self.bounds[value] = self._new(f"bound {value!r}")
            self.constants[name] = numpy_helper.from_array(np.array(value, np.float32), name)
            self.graph.initializer.append(self.constants[name])
        return self.bounds[value]

    def _new(self, name: str) -> str:
        """Return a name that nothing in the graph has: this one, or with a number behind it."""
        found = next(
            text for number in itertools.count() if (text := f"{name}_{number}" if number else name) not in self.names
        )
        self.names.add(found)
        return found

    def _ends(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """Return the range of a pair; None if it has one per channel, or none that is constant."""
        scale = self._value(node.input[1])
        zero = self._value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros((), np.uint8)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.type not in _INTEGERS:
            return None
        kind, step = np.iinfo(zero.dtype), float(scale.reshape(()).astype(np.float64))
        offset = int(zero.reshape(()))
        return (kind.min - offset) * step, (kind.max - offset) * step

    def _is_float8(self, node: onnx.NodeProto) -> bool:
        zero = self._value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        return (zero is not None and zero.dtype.type not in _INTEGERS) or _blocked(node)

    def _never_negative(self, name: str, depth: int = 0) -> bool:
        if name not in self.signs:
            self.signs[name] = False  # of a name that depends on itself
            self.signs[name] = self._is_never_negative(name, depth)
        return self.signs[name]

    def _is_never_negative(self, name: str, depth: int) -> bool:
        constant = self._value(name)
        if constant is not None:
            return bool((constant >= 0).all())
        node = self.producers.get(name)
        if node is None or depth > 50 or node.domain:
            return False
        if node.op_type in _NEVER_NEGATIVE:
            return True
        if node.op_type == _DQ:
            before = self.producers.get(node.input[0])
            ends = self._ends(before) if before is not None and before.op_type == _Q else None
            return ends is not None and ends[0] >= 0
        if node.op_type == "Clip":
            low = self._value(node.input[1]) if len(node.input) > 1 and node.input[1] else None
            return low is not None and bool((low >= 0).all())
        if node.op_type == "Resize" and not _interpolates(node):
            return False
        data = node.input if node.op_type in ("Concat", "Add", "Mul") else node.input[:1]
        return node.op_type in _KEEPS_SIGN and all(self._never_negative(one, depth + 1) for one in data)

    def _value(self, name: str) -> Array | None:
        if name in self.held:
            return self.held[name]
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _finish(self, gone: set[int], renamed: dict[str, str]) -> None:
        graph = self.graph
        kept = [node for node in graph.node if id(node) not in gone]
        copies = []
        for node in kept:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copies.append(copied)
        del graph.node[:]
        graph.node.extend(copies)
        for node in _all_nodes(graph):
            for place, name in enumerate(node.input):
                for _ in renamed:
                    if name not in renamed:
                        break
                    name = renamed[name]
                node.input[place] = name
        used = {name for node in _all_nodes(graph) for name in node.input} | self.outputs
        initializers = [one for one in graph.initializer if one.name in used]
        del graph.initializer[:]
        graph.initializer.extend(initializers)
        made = {name for node in graph.node for name in node.output}
        infos = [one for one in graph.value_info if one.name in made]
        del graph.value_info[:]
        graph.value_info.extend(infos)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _all_nodes(inner)


def _interpolates(node: onnx.NodeProto) -> bool:
    """Return whether what a Resize gives lies between values that it reads: a cubic one overshoots, a crop adds its own."""
    words = {attribute.s for attribute in node.attribute}
    return not words & {b"cubic", b"tf_crop_and_resize"}


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)


def _blocked(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "block_size" and attribute.i for attribute in node.attribute)
