"""The two ends of a deployed graph: preprocessing before the network, decoding after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl_deploy.export.kinds.chain import Chain
from mtl_deploy.export.kinds.registry import kind_of
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME, Signature
from mtl_deploy.runtime.bundle.tasks import Task

from .constants import free_name
from .parts import as_constant, name_outputs
from .source.frames import network_pixels
from .source.steps import Steps

if TYPE_CHECKING:
    import onnx_ir as ir

LOGITS_SUFFIX = "_logits"  # the raw output of a decoded task keeps this name inside the graph
FREE_SIZE = ("height", "width")  # names of the dimensions if they are free


def keeps_logits(task: Task, signature: Signature) -> bool:
    """Return whether a graph also holds the values behind a task's output: logits, unscaled values, a dense task's raw map.

    Log-probabilities are logits. If the network itself returns probabilities, no tensor is named as their logits.
    """
    if signature.outputs != "decoded":
        return False
    return kind_of(task).changes(task)


def add_preprocessing(model: ir.Model, preprocessing: Preprocessing) -> None:
    """Give a graph of ``(N, C, H, W) float32`` the input that the preprocessing describes, in place.

    For ``uint8`` it is ``image: (N, H, W, C) uint8``, RGB where C is 3; a cast, a transposition and one multiply and add per
    channel come first: ``(pixel / 255 - mean) / std``; for BGR a Gather swaps the channels before, which is exact:
    swapped weights of the first layer would add up in another order. For ``float`` only the input's name changes. Free sizes stay
    free. With a source, it is ``image: (N, *source.shape) uint8``, and the frames are converted, resized and placed before, see
    :mod:`mtl_deploy.export.graph.source.frames`.
    """
    import onnx_ir as ir

    old = model.graph.inputs[0]
    assert old.shape is not None  # the tracer sets it
    batch = old.shape[0]
    size: tuple[int | str, int | str] = (preprocessing.height, preprocessing.width)
    if preprocessing.multiple:
        size = FREE_SIZE
    channels = preprocessing.channel_count
    if preprocessing.input == "float":
        old.name, old.shape = INPUT_NAME, ir.Shape([batch, channels, *size])
        return
    shape = [batch, *(preprocessing.image_shape if preprocessing.source is not None else (*size, channels))]
    image = ir.Value(name=INPUT_NAME, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.UINT8))
    mean = np.asarray(preprocessing.mean, np.float64)
    std = np.asarray(preprocessing.std, np.float64)
    scale = as_constant(model, "preprocess.scale", (1 / (255 * std)).reshape(1, -1, 1, 1))
    shift = as_constant(model, "preprocess.shift", (-mean / std).reshape(1, -1, 1, 1))
    if preprocessing.source is not None:
        steps = Steps(model)
        network_pixels(steps, image, preprocessing)
        nodes = steps.nodes
    else:
        cast = ir.node("Cast", [image], {"to": int(ir.DataType.FLOAT)}, name="preprocess/cast")
        transpose = ir.node("Transpose", cast.outputs, {"perm": [0, 3, 1, 2]}, name="preprocess/transpose")
        nodes = [cast, transpose]
        if preprocessing.order == "bgr":
            order = as_constant(model, "preprocess.order", np.array([2, 1, 0], np.int64))
            nodes.append(ir.node("Gather", [transpose.outputs[0], order], {"axis": 1}, name="preprocess/order"))
    multiply = ir.node("Mul", [nodes[-1].outputs[0], scale], name="preprocess/scale")
    add = ir.node("Add", [multiply.outputs[0], shift], name="preprocess/shift")
    nodes += [multiply, add]
    for node in nodes:
        if node.outputs[0].name is None:
            node.outputs[0].name = free_name(model, f"{node.name}_out")
    old.replace_all_uses_with(add.outputs[0], replace_graph_outputs=True)
    model.graph.inputs[0] = image
    model.graph.insert_before(model.graph[0], nodes)


def add_decoding(model: ir.Model, signature: Signature) -> None:
    """Bring each output to ``(N, size)`` or ``(N, size, h, w)``, except for raw ones, and decode it, in place.

    With ``logits`` in the signature nothing is decoded.

    Sigmoid for a binary task with one logit, softmax over the last axis for classes, the exponential for log-probabilities, nothing
    if the network itself applies a sigmoid or softmax; scale and offset for a regression: each kind of task says it, in
    ``export/kinds``.
    """
    import onnx_ir as ir

    for position, task in enumerate(signature.tasks):
        raw = model.graph.outputs[position]
        nodes = _formed(model, task, raw)
        logits = nodes[-1].outputs[0] if nodes else raw
        if signature.outputs == "decoded":
            chain = Chain(task, logits, lambda name, content: as_constant(model, name, content))
            kind_of(task).decode(task, chain)
            nodes += chain.nodes
            decoded = chain.last
        else:
            decoded = logits
        if not nodes:
            continue
        name_outputs(model, nodes)
        raw.name = f"{task.name}_raw"
        logits.name = f"{task.name}{LOGITS_SUFFIX}"
        decoded.name = task.name
        if raw.shape is not None:
            decoded.shape = ir.Shape([raw.shape[0], *_sample_shape(signature, task)])
            decoded.type = ir.TensorType(ir.DataType.from_numpy(signature.dtype(task.name)))
        else:
            decoded.type = raw.type
        model.graph.extend(nodes)
        model.graph.outputs[position] = decoded


def _sample_shape(signature: Signature, task: Task) -> list[int | str]:
    shape: list[int | str] = list(signature.sample_shape(task.name))
    if multiple := signature.preprocessing.multiple:
        sides = signature.preprocessing.height, signature.preprocessing.width
        for axis, (place, side, length) in enumerate(zip((-2, -1), FREE_SIZE, sides, strict=True)):
            larger = list(sides)
            larger[axis] += multiple
            other = signature.sample_shape(task.name, *larger)
            if len(shape) > 1 and other != tuple(shape):
                stride = length // int(shape[place])
                shape[place] = side if stride == 1 else f"{side}/{stride}"
    return shape


def _formed(model: ir.Model, task: Task, raw: ir.Value) -> list[ir.Node]:
    """Return the node that brings an output to the form of its task, see ``as_task`` in ``export/forward/selected.py``."""
    import onnx_ir as ir

    rank = 2 if raw.shape is None else len(raw.shape)
    maps = task.of.of_maps
    if rank > 2 and not maps and not task.of.keeps_shape:
        return [ir.node("Flatten", [raw], {"axis": 1}, name=f"decode/{task.name}/flatten")]
    if rank != 1 and not (maps and rank == 3):
        return []
    axes = as_constant(model, f"decode.{task.name}.axes", np.array([1], np.int64))
    node = ir.node("Unsqueeze", [raw, axes], name=f"decode/{task.name}/unsqueeze")
    return [node]


def _taken(model: ir.Model, value: ir.Value, name: str, columns: tuple[int, int] | None) -> ir.Value:
    """Add a node that takes columns of a value, or all of it; return its output."""
    import onnx_ir as ir

    shape = None if value.shape is None else list(value.shape)
    if columns is None:
        node = ir.node("Identity", [value], name=f"columns/{name}")
    else:
        first, stop = columns
        parts = {"first": first, "stop": stop, "axis": 1}
        ends = [as_constant(model, f"columns.{name}.{word}", np.array([end], np.int64)) for word, end in parts.items()]
        node = ir.node("Slice", [value, *ends], name=f"columns/{name}")
        if shape is not None:
            shape[1] = stop - first
    taken = node.outputs[0]
    taken.shape, taken.type = None if shape is None else ir.Shape(shape), value.type
    model.graph.append(node)
    return taken


def rename_outputs(
    model: ir.Model,
    positions: Sequence[int],
    names: Sequence[str],
    columns: Sequence[tuple[int, int] | None] | None = None,
) -> None:
    """Keep the outputs at the given positions, in that order, under the given names; remove the graph's other outputs.

    A value inside the graph that already has one of these names is renamed. An output that several tasks read, or of which one
    reads some columns, stays inside the graph, behind a ``Slice`` or an ``Identity`` for each of them.
    """
    outputs = [model.graph.outputs[position] for position in positions]
    for place, (position, value) in enumerate(zip(positions, outputs, strict=True)):
        chosen = columns[place] if columns is not None else None
        if chosen is not None or list(positions).count(position) > 1:
            outputs[place] = _taken(model, value, names[place], chosen)
    taken = {INPUT_NAME, *names, *(f"{name}{suffix}" for name in names for suffix in (LOGITS_SUFFIX, "_raw"))}
    held = [value for node in model.graph.all_nodes() for value in node.outputs]
    for graph in (model.graph, *model.graph.subgraphs()):
        held += [*graph.inputs, *graph.initializers.values()]
    for value in held:
        if value.name in taken:
            value.name = free_name(model, f"network.{value.name}")
    for value, name in zip(outputs, names, strict=True):
        value.name = name
    model.graph.outputs[:] = outputs
