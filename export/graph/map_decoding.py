"""Decoding maps in the graph: class indices, depth in its unit, unit vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl_deploy.runtime.bundle.tasks import MANY_CLASSES, Task

if TYPE_CHECKING:
    import onnx_ir as ir

SHORTEST = 1e-6  # normals are divided by no less than this, so that a vector of zeros stays a vector of zeros

Constant = Callable[[str, "np.ndarray[Any, Any]"], "ir.Value"]


def decodes(task: Task) -> bool:
    """Return whether decoding changes a dense task's raw output."""
    return task.kind != "segmentation" or task.argmax or upsamples(task)


def upsamples(task: Task) -> bool:
    """Return whether a decoded graph interpolates a dense task's output to the image's size."""
    return task.upsample and task.stride > 1


def decode_map(task: Task, raw: ir.Value, constant: Constant) -> list[ir.Node]:
    """Return the nodes that decode a dense task's raw output; none if there is nothing to do.

    Segmentation: interpolate the logits, take the best class. Depth: scale and offset, interpolate, clip, drop the channel axis.
    Normals: interpolate, divide by the length. TensorRT 8.5 and later read these forms: the scale of a ``Resize`` is a constant,
    and class indices become ``uint8`` by way of ``float32``, the only type that TensorRT casts to it.

    Args:
        task: with size and stride.
        raw: ``(N, C, h, w) float32``.
        constant: makes an initializer from a name and values.
    """
    made = _Chain(task, raw, constant)
    if task.kind == "depth":
        for op_type, word, number, neutral in (("Mul", "scale", task.scale, 1.0), ("Add", "offset", task.offset, 0.0)):
            if number != neutral:
                made.add(op_type, word, made.last, made.constant(word, float(number)))
    if upsamples(task):
        scales = made.constant("scales", [1.0, 1.0, task.stride, task.stride])
        made.add(
            "Resize", "resize", made.last, None, scales, mode="linear", coordinate_transformation_mode="half_pixel"
        )
    if task.kind == "segmentation":
        _best_class(task, made)
    elif task.kind == "depth":
        if task.valid_range is not None:
            least, most = task.valid_range
            made.add(
                "Clip", "clip", made.last, made.constant("least", float(least)), made.constant("most", float(most))
            )
        made.add("Squeeze", "squeeze", made.last, made.constant("channel", np.array([1], np.int64)))
    else:
        _unit_length(made)
    return made.nodes


def _best_class(task: Task, made: _Chain) -> None:
    import onnx_ir as ir

    if not task.argmax:
        return
    made.add("ArgMax", "argmax", made.last, axis=1, keepdims=0)
    many = task.size > MANY_CLASSES
    for kind in (ir.DataType.INT32,) if many else (ir.DataType.FLOAT, ir.DataType.UINT8):
        made.add("Cast", f"to_{kind.name.lower()}", made.last, to=int(kind))


def _unit_length(made: _Chain) -> None:
    vectors = made.last
    made.add("Mul", "squares", vectors, vectors)
    made.add("ReduceSum", "sum", made.last, made.constant("channel", np.array([1], np.int64)), keepdims=1)
    made.add("Sqrt", "length", made.last)
    made.add("Max", "at_least", made.last, made.constant("shortest", SHORTEST))
    made.add("Div", "unit", vectors, made.last)


class _Chain:
    """The decoding nodes of one task, each named after its step."""

    def __init__(self, task: Task, raw: ir.Value, constant: Constant) -> None:
        self._name, self._constant = task.name, constant
        self.last = raw
        self.nodes: list[ir.Node] = []

    def constant(self, word: str, content: object) -> ir.Value:
        return self._constant(f"decode.{self._name}.{word}", np.asarray(content))

    def add(self, op_type: str, word: str, *inputs: ir.Value | None, **attributes: Any) -> None:
        import onnx_ir as ir

        node = ir.node(op_type, inputs, attributes, name=f"decode/{self._name}/{word}")
        self.nodes.append(node)
        self.last = node.outputs[0]
