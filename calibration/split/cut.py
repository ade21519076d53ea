"""Where a graph is cut into parts, and the parts as files.

A part is what a set of tasks needs and no other task does: the backbone is what all need, a head what one needs, a neck what
several do. A neck is a part of its own if it has any layer with weights; so no layer is computed twice, and none that the tasks of
a call do not need. What is cut are the tensors between parts. These are not cut, but computed again in each part that reads them:
what costs no multiply-adds and several but not all tasks need; constants; integers such as shapes; and what a DequantizeLinear
gives, so that INT8 tensors cross the border as INT8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.onnx_format.weighted import is_weighted

_CROSSING = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_SUMS = (onnx.TensorProto.INT32,)  # of integer convolutions and products
Needs = frozenset[str]
"""The tasks that need a node."""


@dataclass(frozen=True)
class PartFile:
    """A part of a graph.

    Attributes:
        name: ``backbone``, ``neck-1`` or ``head-age``: its file's name without the suffix.
        tasks: that need it, in the graph's order.
        inputs: names of the tensors that it reads: the graph's own input, or what other parts give.
        outputs: names of tasks, and of tensors that other parts read.
        nodes: the first output of each of its nodes, by which the graph's node is found.
        content: the ``.onnx`` file, without metadata.
    """

    name: str
    tasks: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]
    content: bytes = field(repr=False)


def split(content: bytes) -> list[PartFile]:
    """Cut a graph into parts, each after those whose outputs it takes.

    Args:
        content: an ``.onnx`` file whose outputs are the tasks.

    Raises:
        OptionError: there is one task only, no layer that several tasks share, or a tensor that parts cannot hand over.
    """
    model = onnx.load_from_string(content)
    tasks = [value.name for value in model.graph.output]
    if len(tasks) < 2:
        raise OptionError("the network has one task, so there is no backbone to split heads from; leave --split out")
    whole = _Whole(model)
    kept = {needs for node, needs in enumerate(whole.needs) if len(needs) > 1 and whole.works(node)}
    if not kept:
        raise OptionError(
            "the tasks share no layer with weights, so there is no backbone to split off; leave --split out"
        )
    kept |= {frozenset([task]) for task in tasks}
    demanded: dict[Needs, dict[str, None]] = {needs: {} for needs in kept}
    for task in tasks:
        demanded[whole.home(task, kept)][task] = None
    found: list[tuple[Needs, list[int], list[str]]] = []
    for needs in sorted(kept, key=lambda each: (len(each), [task in each for task in tasks])):  # readers first
        if demanded[needs]:
            nodes, inputs = whole.collect(needs, demanded, kept)
            found.append((needs, nodes, inputs))
    found.reverse()
    names = _names([needs for needs, _, _ in found], tasks)
    return [
        PartFile(
            name,
            tuple(task for task in tasks if task in needs),
            tuple(inputs),
            tuple(demanded[needs]),
            tuple(next(output for output in model.graph.node[node].output if output) for node in nodes),
            whole.extract(nodes, inputs, list(demanded[needs])),
        )
        for name, (needs, nodes, inputs) in zip(names, found, strict=True)
    ]


def _names(parts: Sequence[Needs], tasks: Sequence[str]) -> Iterator[str]:
    necks = 0
    for needs in parts:
        if len(needs) == len(tasks):
            yield "backbone"
        elif len(needs) == 1:
            yield f"head-{next(iter(needs))}"
        else:
            necks += 1
            yield f"neck-{necks}"


class _Whole:
    """A graph, and which tasks need each of its nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        graph = model.graph
        nodes = graph.node
        self._producer = {name: position for position, node in enumerate(nodes) for name in node.output if name}
        self._reads = [tuple(dict.fromkeys(_reads(node))) for node in nodes]
        self._inputs = [value.name for value in graph.input]
        self._values = _values(model)
        fed = set(self._inputs)
        self._fed = [False] * len(nodes)  # whether a node depends on the graph's input
        for position, reads in enumerate(self._reads):
            self._fed[position] = not fed.isdisjoint(reads)
            if self._fed[position]:
                fed.update(nodes[position].output)
        wanted: list[set[str]] = [set() for _ in nodes]
        for task in (value.name for value in graph.output):
            wanted[self._producer[task]].add(task)
        for position in reversed(range(len(nodes))):
            for name in self._reads[position]:
                if (source := self._producer.get(name)) is not None:
                    wanted[source] |= wanted[position]
        self.needs: list[Needs] = [frozenset(each) for each in wanted]

    def works(self, node: int) -> bool:
        """Return whether a node carries weights and depends on the graph's input."""
        return self._fed[node] and _has_weights(self._model.graph.node[node])

    def home(self, task: str, kept: set[Needs]) -> Needs:
        """Return the part that gives a task: its head, or the part that computes it on the way to other tasks."""
        needs = self.needs[self._producer[task]]
        return needs if needs in kept else frozenset([task])

    def collect(
        self, needs: Needs, demanded: dict[Needs, dict[str, None]], kept: set[Needs]
    ) -> tuple[list[int], list[str]]:
        """Return a part's nodes, in order, and what it reads; what it reads of other parts is demanded of them."""
        nodes: set[int] = set()
        inputs: dict[str, None] = {}
        waiting = list(demanded[needs])
        while waiting:
            name = waiting.pop()
            source = self._producer.get(name)
            if source is None:
                if name in self._inputs:
                    inputs[name] = None
            elif self.needs[source] != needs and self._crosses(name, source, kept):
                inputs[name] = None
                demanded[self.needs[source]][name] = None
            elif source not in nodes:
                nodes.add(source)
                waiting += self._reads[source]
        order = {name: place for place, name in enumerate((*self._inputs, *self._producer))}
        return sorted(nodes), sorted(inputs, key=order.__getitem__)

    def _crosses(self, name: str, source: int, kept: set[Needs]) -> bool:
        """Return whether a tensor of another part crosses the border; otherwise the node that gives it is computed again.

        Raises:
            OptionError: it must cross, since its node has weights, and cannot.
        """
        if self.needs[source] not in kept or not self._fed[source]:
            return False
        node, element = self._model.graph.node[source], self._values[name].type.tensor_type.elem_type
        if element in _CROSSING:
            return bool(node.op_type != "DequantizeLinear")
        if not self.works(source):
            return False
        if element not in _SUMS:
            kind = onnx.TensorProto.DataType.Name(element).lower() if element else "of an unknown type"
            raise OptionError(
                f"{name!r}, which {node.op_type} {node.name!r} gives to several tasks, is {kind}: no tensor that parts can hand "
                "over; leave --split out"
            )
        return True

    def extract(self, nodes: Sequence[int], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """Return the part with these nodes as an ``.onnx`` file."""
        whole, graph, made = self._model, self._model.graph, onnx.ModelProto()
        made.ir_version = whole.ir_version
        made.producer_name, made.producer_version = whole.producer_name, whole.producer_version
        made.opset_import.extend(whole.opset_import)
        made.functions.extend(whole.functions)
        part = made.graph
        part.name = graph.name
        held = {name for node in nodes for name in graph.node[node].output}
        read = {name for node in nodes for name in self._reads[node]}
        part.node.extend(graph.node[node] for node in nodes)
        part.input.extend(self._values[name] for name in inputs)
        part.output.extend(self._values[name] for name in outputs)
        part.initializer.extend(each for each in graph.initializer if each.name in read)
        part.sparse_initializer.extend(each for each in graph.sparse_initializer if each.values.name in read)
        ends = {*inputs, *outputs}
        part.value_info.extend(each for each in graph.value_info if each.name in held and each.name not in ends)
        content: bytes = made.SerializeToString(deterministic=True)
        return content


def _values(model: onnx.ModelProto) -> Mapping[str, onnx.ValueInfoProto]:
    """Return what is known about the graph's tensors; where the file does not say it, it is inferred."""
    graph = model.graph
    found = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
    if any(name and name not in found for node in graph.node for name in node.output):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        found = {value.name: value for value in inferred.value_info} | found
    for node in graph.node:
        for name in node.output:
            found.setdefault(name, onnx.ValueInfoProto(name=name))  # of no known type: it is not cut there
    return found


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, and all that graphs inside it read."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from _reads(each)
            yield from (value.name for value in inner.output)


def _has_weights(node: onnx.NodeProto) -> bool:
    inside = (each for attribute in node.attribute for inner in (attribute.g, *attribute.graphs) for each in inner.node)
    return is_weighted(node.op_type) or any(_has_weights(each) for each in inside)
