"""Writing a graph for an older opset.

The exporter writes opset 18 and higher; TensorRT 8.6 reads 17 at most. ``onnx.version_converter`` cannot downgrade what changed
in 18, so the few operators concerned are rewritten here, following the change notes at https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.runtime.errors import OptionError

from .constants import constant

if TYPE_CHECKING:
    import onnx_ir as ir

LOWEST, HIGHEST = 17, 23  # what the toolkit writes
_TRACED = 18  # what the exporter writes by itself
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}  # of the ONNX release that brought the opset


class NotExpressibleError(OptionError):
    """A node needs a higher opset than the requested one."""


def write_opset(model: ir.Model, opset: int | None) -> int:
    """Rewrite a graph of opset 18 or higher for the requested opset, in place; return the opset that it then has.

    Args:
        model: a graph as :func:`~mtl_deploy.export.graph.trace.trace` made it, for opset ``max(opset, 18)``.
        opset: the opset to write; None: 17 if the graph can be expressed in it, otherwise the graph's own.

    Raises:
        NotExpressibleError: a node cannot be written in the requested opset; the message names it.
    """
    if opset is None and model.opset_imports[""] > _TRACED:
        opset = model.opset_imports[""]  # an operator needs it
    if opset is None:
        try:
            _write_17(model.clone())
        except NotExpressibleError:
            opset = model.opset_imports[""]
    if opset is None or opset == LOWEST:
        _write_17(model)
    written = model.opset_imports[""]
    model.ir_version = IR_VERSIONS[written]
    return written


def needed_opset(model: ir.Model) -> tuple[int, str]:
    """Return the first opset that has all operators of a graph, and the operator that needs it; at least the graph's own opset.

    The exporter writes operators of later opsets without a word.
    """
    from onnx import defs

    opset = model.opset_imports[""]
    found = (opset, "")
    for op_type in {node.op_type: None for node in model.graph.all_nodes() if not node.domain}:
        if defs.has(op_type, opset) or not defs.has(op_type):
            continue
        every = (each for each in defs.get_all_schemas_with_history() if each.name == op_type and not each.domain)
        found = max(found, (min(each.since_version for each in every), op_type))
    return found


def _write_17(model: ir.Model) -> None:
    for node in list(model.graph.all_nodes()):
        _lower(model, node)
    model.graph.opset_imports[""] = 17


def _lower(model: ir.Model, node: ir.Node) -> None:
    """Rewrite one node of opset 18 for opset 17."""
    from onnx import defs

    if node.domain or not defs.has(node.op_type):
        return
    if not defs.has(node.op_type, 18):
        raise NotExpressibleError(f"opset 17 has no {node.op_type} (node {node.name!r}); leave --opset out")
    if defs.get_schema(node.op_type, max_inclusive_version=18).since_version < 18:
        return
    if node.op_type.startswith("Reduce"):
        _axes_to_attribute(node)
    elif node.op_type == "Split":
        _sizes_to_input(model, node)
    elif node.op_type == "Resize":
        _drop(node, antialias=0, keep_aspect_ratio_policy="stretch", axes=None)
    elif node.op_type == "Pad":
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            raise _needs_18(node, "axes")
    elif node.op_type in ("ScatterElements", "ScatterND"):
        if node.attributes.get_string("reduction", "none") in ("max", "min"):
            raise _needs_18(node, "reduction max or min")
    else:
        raise _needs_18(node, "the operator")


def _axes_to_attribute(node: ir.Node) -> None:
    import onnx_ir as ir

    axes = node.inputs[1] if len(node.inputs) > 1 else None
    noop = node.attributes.get_int("noop_with_empty_axes", 0)
    node.attributes.pop("noop_with_empty_axes", None)
    if axes is None:
        if noop:
            raise _needs_18(node, "noop_with_empty_axes")
        return
    constant = ir.convenience.get_const_tensor(axes)
    if constant is None:
        raise _needs_18(node, "computed axes")
    node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in constant.numpy().ravel()])
    node.resize_inputs(1)


def _sizes_to_input(model: ir.Model, node: ir.Node) -> None:
    if node.attributes.pop("num_outputs", None) is None:
        return
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    axis = node.attributes.get_int("axis", 0)
    total = None if shape is None else shape[axis]
    if not isinstance(total, int):
        raise _needs_18(node, "num_outputs on an unknown size")
    count = len(node.outputs)
    chunk = -(-total // count)
    sizes = np.array([chunk] * (count - 1) + [total - chunk * (count - 1)], dtype=np.int64)
    node.resize_inputs(2)
    node.replace_input_with(1, constant(model, f"{node.outputs[0].name}_split", sizes))


def _drop(node: ir.Node, **defaults: object) -> None:
    for name, default in defaults.items():
        attribute = node.attributes.pop(name, None)
        if attribute is not None and attribute.value != default:
            raise _needs_18(node, f"{name}={attribute.value}")


def _needs_18(node: ir.Node, what: str) -> NotExpressibleError:
    return NotExpressibleError(
        f"opset 17 cannot express node {node.name!r} ({node.op_type}): {what} came with opset 18; pass --opset 18 or higher"
    )
