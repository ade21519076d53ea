"""Somebody else's graph in the form that the steps of an export expect: one set of operators, one opset, names without clashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx
import onnx.inliner
import onnx.version_converter

from mtl_deploy.export.graph.causes import first_line
from mtl_deploy.export.graph.trace import TRACE_OPSET
from mtl_deploy.runtime.bundle.signature import METADATA_KEY
from mtl_deploy.runtime.errors import CheckpointError, TraceError
from mtl_deploy.runtime.files.reading import shown

from .reading import messages

_OWN = ("", "ai.onnx")  # both mean the operators of ONNX itself
_MICROSOFT = "com.microsoft"
_INTEGER = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
}  # fmt: skip
_SHOWN = 4
_COORDINATES = 11  # the first opset in which Resize says where pixels lie
_IR_VERSION = 4  # the first in which an initializer need not be an input
MOST_NODES = 200_000  # of a graph with its functions written out; networks have 2,000
OLDEST = 7  # the oldest opset that ONNX Runtime promises to run


def prepare(model: onnx.ModelProto, where: str) -> tuple[str, ...]:
    """Check what a graph is made of and make it readable for every library, in place: what it computes stays the same.

    Local functions are written out; initializers that are listed as inputs, as ONNX did before IR version 4, are constants; names
    of nodes are unique.

    Returns:
        Notes for a reader of the bundle.

    Raises:
        CheckpointError: it is no network of its own: a bundle's, quantized, left in training mode, or of an unknown opset.
    """
    if any(entry.key == METADATA_KEY for entry in model.metadata_props):
        raise CheckpointError(
            f"{where}: a graph of a bundle, which mtl-export wrote; give the checkpoint or graph that the bundle was made from"
        )
    if not model.graph.node or not model.graph.output:
        raise CheckpointError(f"{where}: the graph has no {'output' if model.graph.node else 'node'}; export it again")
    _name_domains(model)
    opset = opset_of(model)
    if not OLDEST <= opset <= onnx.defs.onnx_opset_version():
        raise CheckpointError(
            f"{where}: opset {opset}; {OLDEST} to {onnx.defs.onnx_opset_version()} are read: export the graph again with opset 17"
        )
    if model.functions:
        if (count := _expanded(model)) > MOST_NODES:
            raise CheckpointError(
                f"{where}: its functions hold {count} nodes written out; {MOST_NODES} at most are read"
            )
        try:
            model.CopyFrom(onnx.inliner.inline_local_functions(model))
        except Exception as error:  # a C++ library, whose errors have no common base class
            raise CheckpointError(
                f"{where}: its functions cannot be written out ({first_line(error, 200)}); export it again"
            ) from error
    _require_float(model, where)
    _require_inference(model, where)
    held = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in held]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    _name_nodes(model)
    return tuple(_foreign(model))


def opset_of(model: onnx.ModelProto) -> int:
    """Return the opset of ONNX's own operators; 0 if the model names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in _OWN), default=0)


def to_opset(model: onnx.ModelProto, wanted: int | None, where: str) -> onnx.ModelProto:
    """Return the graph in opset 18, from which :mod:`mtl_deploy.export.graph.opset` writes 17, or in the higher one asked for.

    Upwards ONNX's own version converter rewrites what changed. Downwards from 19 and later nothing needs rewriting where an
    operator is used as opset 18 knows it; a graph that uses more keeps its opset.

    Raises:
        TraceError: the converter cannot rewrite a node.
    """
    target = max(wanted or TRACE_OPSET, TRACE_OPSET)
    found = opset_of(model)
    if found > target:
        newer = [node for node in _nodes(model) if not _fits(node, found, target)]
        if not newer:
            lowered = onnx.ModelProto()
            lowered.CopyFrom(model)
            _set_opset(lowered, target)
            return lowered
        if wanted is not None:
            raise TraceError(
                f"{where}: node {shown(newer[0].name)} ({newer[0].op_type}) is written in opset {found} and needs more than opset "
                f"{wanted}; pass --opset {found}"
            )
        return model
    if found == target:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, target)
    except Exception as error:  # a C++ library, whose errors have no common base class
        raise TraceError(
            f"{where}: opset {found} cannot be converted to {target} ({first_line(error, 200)}); export the graph again "
            "with opset 17"
        ) from error
    if found < _COORDINATES:
        _keep_coordinates(converted)
    return converted


def _keep_coordinates(model: onnx.ModelProto) -> None:
    """Say what ``Upsample`` and ``Resize`` meant before opset 11; the converter leaves the new default, half-pixel centres."""
    for node in _nodes(model):
        if node.op_type == "Resize" and not node.domain:
            said = {attribute.name for attribute in node.attribute}
            for name, value in {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}.items():
                if name not in said:
                    node.attribute.append(onnx.helper.make_attribute(name, value))


def _expanded(model: onnx.ModelProto) -> int:
    """Return the number of nodes of a graph with its functions written out; more than there may be if one calls itself."""
    bodies = {
        (body.domain, body.name): [n for n in messages(body) if isinstance(n, onnx.NodeProto)]
        for body in model.functions
    }
    counts = dict.fromkeys(bodies, 1)
    for _ in bodies:  # as many rounds as the deepest chain of calls can have
        grown = {key: 1 + sum(counts.get((n.domain, n.op_type), 1) for n in nodes) for key, nodes in bodies.items()}
        if grown == counts or max(grown.values()) > MOST_NODES:
            break
        counts = grown
    else:
        grown = counts
    return sum(
        grown.get((node.domain, node.op_type), 1) for node in messages(model.graph) if isinstance(node, onnx.NodeProto)
    )


def _fits(node: onnx.NodeProto, opset: int, target: int) -> bool:
    """Return whether a node means the same in an older opset: its operator is there, with all that the node uses of it.

    Between 18 and today, versions of operators differ in types, new attributes and new words for old ones
    (https://onnx.ai/onnx/operators/); only GroupNormalization changed its meaning.
    """
    if node.domain:
        return True
    try:
        new = onnx.defs.get_schema(node.op_type, opset)
        old = onnx.defs.get_schema(node.op_type, target)
    except onnx.defs.SchemaError:
        return False
    if new.since_version == old.since_version:
        return True
    words = {attribute.s for attribute in node.attribute if attribute.type == onnx.AttributeProto.STRING}
    known = all(attribute.name in old.attributes or _is_default(attribute, new) for attribute in node.attribute)
    fits = len(node.input) <= len(old.inputs) or old.max_input > len(old.inputs)
    return known and fits and node.op_type != "GroupNormalization" and not words & {b"wrap", b"half_pixel_symmetric"}


def _is_default(attribute: onnx.AttributeProto, schema: Any) -> bool:
    default = schema.attributes[attribute.name].default_value
    return (
        bool(onnx.helper.get_attribute_value(attribute) == onnx.helper.get_attribute_value(default))
        if default.name
        else False
    )


def _set_opset(model: onnx.ModelProto, opset: int) -> None:
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = opset


def _name_domains(model: onnx.ModelProto) -> None:
    """Write ONNX's own domain as everybody does, empty, and once."""
    opset = opset_of(model)
    others = {entry.domain: entry.version for entry in model.opset_import if entry.domain not in _OWN}
    del model.opset_import[:]
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, version) for domain, version in {"": opset, **others}.items()
    )
    for node in _nodes(model):
        if node.domain in _OWN and node.domain:
            node.domain = ""


def _require_float(model: onnx.ModelProto, where: str) -> None:
    found = Counter(
        node.op_type for node in _nodes(model) if node.op_type in _INTEGER or node.op_type.startswith("QLinear")
    )
    if found:
        raise CheckpointError(
            f"{where}: quantized already ({_counted(found)}), and its INT8 ranges cannot be taken over; give the float graph that "
            "it was made from, and let mtl-export quantize that: --calibration-data FOLDER"
        )


def _require_inference(model: onnx.ModelProto, where: str) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = node.attribute[0].t
    for node in _nodes(model):
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in constants:
            training = bool(onnx.numpy_helper.to_array(constants[node.input[2]]).any())
        if training and not node.domain:
            raise CheckpointError(
                f"{where}: node {shown(node.name)} ({node.op_type}) is in training mode: answers depend on the batch or on chance; "
                "export the graph again after network.eval()"
            )


def _name_nodes(model: onnx.ModelProto) -> None:
    taken: set[str] = set()
    for number, node in enumerate(_nodes(model)):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{number}"
        while node.name in taken:
            node.name += "_"
        taken.add(node.name)


def _foreign(model: onnx.ModelProto) -> Iterator[str]:
    others: dict[str, Counter[str]] = {}
    for node in _nodes(model):
        if node.domain:
            others.setdefault(node.domain, Counter())[node.op_type] += 1
    for domain, found in others.items():
        what = (
            "ONNX Runtime's own, which TensorRT does not read" if domain.startswith(_MICROSOFT) else "no part of ONNX"
        )
        yield f"the given graph uses operators of {domain} ({_counted(found)}): they are {what}"


def _counted(found: Counter[str]) -> str:
    texts = [f"{count} {name}" for name, count in found.most_common(_SHOWN)]
    return ", ".join(texts) + (", ..." if len(found) > _SHOWN else "")


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (found for found in messages(model) if isinstance(found, onnx.NodeProto))
