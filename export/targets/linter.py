"""Whether the TensorRT of a target reads a graph, checked before a build: opset, operators and their forms, element types.

docs/targets.md has the sources. Nothing here needs onnx or TensorRT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from mtl_deploy.export.graph.opset import HIGHEST
from mtl_deploy.runtime.onnx_format.graph import ELEMENT_TYPES, OnnxGraph, OnnxNode, OnnxTensor, read_graph

from .operators import (
    CHANGED_IN,
    NOT_BUILT_IN_RTX,
    NOT_IN_RTX,
    READ_SINCE,
    RESTRICTIONS,
    TYPES_SINCE,
    Use,
    quantized_type,
)
from .table import TARGETS, Target, find_target

INT8_OPSET = "mtl-calibrate BUNDLE --calibration-data PHOTOS/ --opset 17"
"""What makes INT8 graphs that TensorRT 8.6 reads."""

__all__ = ["INT8_OPSET", "TARGETS", "Finding", "Target", "check", "find_target"]

_INT32 = 2**31


@dataclass(frozen=True)
class Finding:
    """Something in a graph that a target does not read, and what to change."""

    target: str
    graph: str
    subject: str
    problem: str
    remedy: str
    level: Literal["error", "note"] = "error"  # a note: it is read, but not as ONNX defines it

    def __str__(self) -> str:
        note = "note: " if self.level == "note" else ""
        return f"{self.target}: {self.graph}: {note}{self.subject}: {self.problem}; {self.remedy}"


def check(content: bytes, target: Target, graph: str) -> list[Finding]:
    """Find what a target's TensorRT does not read in a graph, and what to change.

    Args:
        content: an ``.onnx`` file.
        target: where it is to run.
        graph: the file's name in the findings.

    Returns:
        The findings; if there are none, no reason against a build is known. TensorRT can still reject a graph for its shapes or
        sizes.

    Raises:
        BundleError: the bytes are not an ONNX file.
    """
    model = read_graph(content)
    return list(dict.fromkeys(_Linter(model, target, graph).findings()))


@dataclass(frozen=True)
class _Linter:
    model: OnnxGraph
    target: Target
    graph: str

    def findings(self) -> Iterator[Finding]:
        yield from self._opset()
        for use in self._uses(self.model, {}, {}):
            yield from self._operator(use)
        for (domain, name), nodes in self.model.functions.items():
            if self.target.rules < (9, 0):
                subject = f"function {domain}.{name}"
                yield self._finding(
                    subject, "local functions are not read", "inline them (onnx.inliner), or export again"
                )
            for node in nodes:
                yield from self._operator(Use(node, self.model.opset, dict.fromkeys(node.inputs), {}))
        yield from self._types()
        yield from self._bytes()
        if self.target.rules < (9, 0):
            yield from self._wide_integers()

    def _finding(self, subject: str, problem: str, remedy: str, level: Literal["error", "note"] = "error") -> Finding:
        return Finding(self.target.name, self.graph, subject, problem, remedy, level)

    def _opset(self) -> Iterator[Finding]:
        has, reads = self.model.opset, self.target.opset
        if has <= reads:
            return
        changed = {name: opset for opset in range(has, reads, -1) for name in CHANGED_IN.get(opset, ())}
        nodes = [node for node in self.model.all_nodes() if not node.domain and node.op_type in changed]
        problem = f"{self.target.title} is documented to read opset {reads} at most"
        if nodes:
            more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
            problem += f", and {nodes[0]}{more} has a definition of opset {changed[nodes[0].op_type]} or later"
        remedy = f"export again with --opset {min(reads, HIGHEST)}"
        if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in self.model.all_nodes()):
            remedy = f"make the INT8 graphs for it: {INT8_OPSET}, or mtl-export with --calibration-data and --opset 17"
        yield self._finding(f"opset {has}", problem, remedy)

    def _uses(
        self, graph: OnnxGraph, outer: Mapping[str, OnnxTensor | None], outer_ranks: Mapping[str, int]
    ) -> Iterator[Use]:
        constants = {**outer, **graph.initializers}
        ranks = {**outer_ranks, **{name: len(tensor.shape) for name, tensor in graph.initializers.items()}}
        ranks |= {
            value.name: len(value.shape)
            for value in (*graph.inputs, *graph.values, *graph.outputs)
            if value.shape is not None
        }
        for node in graph.nodes:
            if node.op_type == "Constant" and not node.domain:
                value = node.attributes.get("value")
                constants |= dict.fromkeys(node.outputs, value if isinstance(value, OnnxTensor) else None)
            yield Use(node, graph.opset, constants, ranks)
            for inner in node.graphs:
                yield from self._uses(inner, constants, ranks)

    def _operator(self, use: Use) -> Iterator[Finding]:
        node, title = use.node, self.target.title
        if (node.domain, node.op_type) in self.model.functions:
            return
        since = READ_SINCE.get(node.op_type)
        if self.target.library == "tensorrt-rtx" and node.op_type in NOT_IN_RTX:
            since = None
        reads = since is not None and since <= self.target.rules
        if node.domain and reads:
            problem = f"its domain is {node.domain}, but the parser looks only at the name and reads ONNX's own {node.op_type}"
            yield self._finding(str(node), problem, "make sure that both do the same", "note")
            return
        if node.domain:
            problem = f"domain {node.domain} is not ONNX's, so TensorRT needs a plugin of that name"
            yield self._finding(
                str(node), problem, "write it with ONNX's operators, or register the plugin before the build"
            )
            return
        if not reads:
            known = f"; TensorRT {since[0]}.{since[1]} is the first that does" if since else ""
            yield self._finding(
                str(node), f"{title} does not read the operator{known}", "express it with other operators"
            )
            return
        if self.target.library == "tensorrt-rtx" and node.op_type in NOT_BUILT_IN_RTX:
            yield self._finding(
                str(node), f"{title} reads the operator and has no kernel for it", "express it with other operators"
            )
        for rule in RESTRICTIONS:
            open_still = rule.before is None or self.target.rules < rule.before
            if open_still and node.op_type in rule.operators and rule.applies(use):
                problem = rule.problem.format(type=quantized_type(use), scale=use.input_type(1))
                yield self._finding(str(node), problem, rule.remedy)

    def _types(self) -> Iterator[Finding]:
        """Find element types that are not read, naming the first tensor of each."""
        found: dict[str, list[str]] = {}
        for name, kind in self._typed_tensors():
            found.setdefault(kind, []).append(name)
        for kind, names in found.items():
            count = len(dict.fromkeys(names)) - 1
            subject = f"tensor {names[0]!r} ({kind})" + (f" and {count} more" if count else "")
            since = TYPES_SINCE.get(kind)
            if kind == "float64":
                problem = f"{self.target.title} computes float64 in float32"
                yield self._finding(
                    subject, problem, "export it in float32, so that ONNX Runtime does the same", "note"
                )
            elif since is None or since > self.target.rules:
                known = f"; TensorRT {since[0]}.{since[1]} is the first that does" if since else ""
                remedy = "export it in float16" if kind == "bfloat16" else "cast it to a type that is read"
                yield self._finding(subject, f"{self.target.title} does not read the type{known}", remedy)

    def _typed_tensors(self) -> Iterator[tuple[str, str]]:
        for graph in self.model.walk():
            for value in (*graph.inputs, *graph.values, *graph.outputs):
                if value.element_type:
                    yield value.name, value.element_type
            for tensor in graph.initializers.values():
                yield tensor.name, tensor.element_type
            for node in graph.nodes:
                yield from ((name, kind) for name, kind in zip(node.outputs, _output_types(node), strict=False) if kind)

    def _bytes(self) -> Iterator[Finding]:
        """Find uint8 tensors anywhere but between the network's inputs or outputs and a Cast."""
        inputs = {value.name for value in self.model.inputs if value.element_type == "uint8"} - set(
            self.model.initializers
        )
        outputs = {value.name for value in self.model.outputs}
        border = "TensorRT allows uint8 only as the network's input or output"
        for node in self.model.all_nodes():
            if node.op_type in ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear"):
                read: list[str] = []
            else:
                read = [name for name in node.inputs if name in inputs]
            for name in read:
                yield self._finding(
                    f"tensor {name!r} (uint8)", f"{border}, {node} reads it", "put a Cast right after it"
                )
            for name, kind in zip(node.outputs, _output_types(node), strict=False):
                if kind != "uint8" or node.op_type == "QuantizeLinear":
                    continue
                if name not in outputs:
                    yield self._finding(
                        f"tensor {name!r} (uint8)", f"{border}, {node} computes it", "compute in another type"
                    )
                elif node.op_type not in ("Cast", "Identity"):
                    yield self._finding(
                        f"tensor {name!r} (uint8)", f"{border}, {node} computes it", "put a Cast before it"
                    )

    def _wide_integers(self) -> Iterator[Finding]:
        title = self.target.title
        for value in (*self.model.inputs, *self.model.outputs):
            if value.element_type == "int64":
                subject = f"tensor {value.name!r} (int64)"
                yield self._finding(subject, f"{title} binds it as int32", "pass int32, or cast it inside", "note")
        for use in self._uses(self.model, {}, {}):
            for position, name in enumerate(use.node.inputs):
                tensor = use.constants.get(name)
                if tensor is None or tensor.element_type != "int64" or _is_bound(use.node, position):
                    continue
                values = tensor.values()
                if values is not None and values.size and (values.min() < -_INT32 or values.max() >= _INT32):
                    problem = f"it has values beyond int32, which {title} clamps"
                    yield self._finding(f"tensor {name!r} (int64)", problem, "use values below 2**31")


def _is_bound(node: OnnxNode, position: int) -> bool:
    """Return whether an input is a Slice's start or end, where the largest number means the last position."""
    return node.op_type == "Slice" and position in (1, 2)


def _output_types(node: OnnxNode) -> tuple[str | None, ...]:
    """Return the types of a node's outputs; for a Cast, from its attribute."""
    target = node.attributes.get("to")
    if node.op_type == "Cast" and isinstance(target, int):
        return (ELEMENT_TYPES.get(target),)
    return node.output_types
