"""From a given graph to a raw one, as tracing a PyTorch network gives it: float images in, the outputs that tasks ask for out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx
import onnx_ir as ir
import torch

from mtl_deploy.calibration.data.natural import natural_images
from mtl_deploy.export.graph.borders import FREE_SIZE
from mtl_deploy.export.graph.constants import constant, free_name
from mtl_deploy.export.graph.passes import resize_by_scales
from mtl_deploy.export.graph.sizes import infer_anew, name_free_sizes
from mtl_deploy.export.graph.trace import TracedGraph
from mtl_deploy.export.network.inputs import network_input
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import INPUT_NAME
from mtl_deploy.runtime.errors import CheckpointError, RunError, TraceError

from .entry import Entry
from .graph import run, session
from .tidy import opset_of, to_opset

_BATCHES = (1, 3)
_CLOSE = 1e-4  # of an output's largest value: FP32 differs by a thousandth of that from one batch to another
_OURS = ("preprocess", "decode", INPUT_NAME)


class Given(Protocol):
    """A graph with what it must compute.

    Attributes:
        model: prepared; not changed.
        entry: its image.
        batch: the only one that it takes; None if it takes any.
        where: how errors call the file.
    """

    model: onnx.ModelProto
    entry: Entry
    batch: int | None
    where: str

    def __call__(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return its float outputs by name for any number of images."""
        ...


def take(
    given: Given,
    outputs: Sequence[str],
    preprocessing: Preprocessing,
    *,
    opset: int | None = None,
    threads: int | None = None,
) -> TracedGraph:
    """Turn a given graph into one for float images ``(N, C, H, W)``, with a free batch where that changes no row.

    Whether it does is found out by running it: on batches of one and of three images, each row must be what the given graph
    gives for that image alone. Otherwise the given batch stays, and the result says so.

    Args:
        given: it runs.
        outputs: names of those that tasks ask for; all others are left out, with what only they need.
        preprocessing: size and normalisation of the images.
        opset: the one wanted in the end.
        threads: for ONNX Runtime; None: one per core.

    Raises:
        TraceError: the graph cannot be written in the opset, or not with free sizes, or then gives other values.
    """
    model = _with_float_images(ir.from_proto(to_opset(given.model, opset, given.where)), given, preprocessing)
    model.graph.outputs[:] = [value for value in model.graph.outputs if value.name in outputs]
    probe = natural_images(
        max(_BATCHES), preprocessing.height, preprocessing.width, seed=1, channels=preprocessing.channel_count
    )
    images = network_input(probe, preprocessing)
    with torch.inference_mode():
        expected = {name: value.numpy() for name, value in given(images).items() if name in outputs}
    for freed in (_free, _free_shapes):
        if freed is _free_shapes and given.batch != 1:
            break
        tried = freed(model)
        if tried is not None and _is_equal(tried, images.numpy(), expected, threads):
            _state_shapes(tried, expected, "batch", preprocessing)
            if preprocessing.multiple:
                name_free_sizes(tried, *FREE_SIZE)
            return TracedGraph(tried)
    batch = given.batch or 1
    fixed = _sized(model, batch)
    if not _is_equal(fixed, images.numpy(), expected, threads, batch):
        raise TraceError(
            f"{given.where}: turned from opset {opset_of(given.model)} into {model.opset_imports['']}, it gives other values than "
            "before; export it again with opset 17"
        )
    _state_shapes(fixed, expected, batch, preprocessing)
    note = f"the given graph fixes its batch at {batch}, and cannot be freed without changing its answers, so it stays"
    if preprocessing.multiple:
        name_free_sizes(fixed, *FREE_SIZE)
    return TracedGraph(fixed, batch=batch, note=note)


def _with_float_images(model: ir.Model, given: Given, preprocessing: Preprocessing) -> ir.Model:
    """Give a graph the input ``(N, C, H, W) float32``, and move names out of our way."""
    graph = model.graph
    for value in [
        *graph.inputs,
        *graph.initializers.values(),
        *(v for node in graph.all_nodes() for v in node.outputs),
    ]:
        if value.name and value.name.startswith(_OURS) and not value.is_graph_output():  # tasks ask for outputs by name
            value.name = free_name(model, f"network.{value.name}")
    old = graph.inputs[0]
    height, width = (None, None) if preprocessing.multiple else (preprocessing.height, preprocessing.width)
    shape = ir.Shape(["batch", preprocessing.channel_count, height or "given_height", width or "given_width"])
    if not given.entry.pixels and not given.entry.last:
        old.shape, old.type = shape, ir.TensorType(ir.DataType.FLOAT)
        return model
    image = ir.Value(name=free_name(model, "network.given_image"), shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    nodes: list[ir.Node] = []
    value = image
    if given.entry.last:
        nodes.append(ir.node("Transpose", [value], {"perm": [0, 2, 3, 1]}, name="network.to_last"))
        value = nodes[-1].outputs[0]
    if given.entry.pixels:
        value = _as_pixels(old, value, nodes)
    for number, node in enumerate(nodes):
        node.outputs[0].name = free_name(model, f"network.given_image_{number}")
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.inputs[0] = image
    graph.insert_before(graph[0], nodes)
    return model


def _as_pixels(old: ir.Value, value: ir.Value, nodes: list[ir.Node]) -> ir.Value:
    """Let casts to float32 read the float images directly, which hold whole numbers; what reads bytes gets a cast."""
    for node, _ in list(old.uses()):
        if node.op_type == "Cast" and not node.domain and node.attributes.get_int("to", 0) == ir.DataType.FLOAT:
            output = node.outputs[0]
            if not output.is_graph_output():
                output.replace_all_uses_with(value, replace_graph_outputs=True)
    if all(node.op_type == "Cast" and not node.outputs[0].uses() for node, _ in old.uses()):
        return value
    nodes.append(ir.node("Round", [value], name="network.whole_pixels"))
    nodes.append(ir.node("Cast", nodes[-1].outputs, {"to": int(ir.DataType.UINT8)}, name="network.pixels"))
    return nodes[-1].outputs[0]


def _free(model: ir.Model) -> ir.Model:
    return _sized(model, "batch")


def _sized(model: ir.Model, batch: int | str) -> ir.Model:
    """Return a copy with this batch, and with the shapes that follow from it."""
    import onnx_ir.passes.common as common

    sized = model.clone()
    assert isinstance(sized, ir.Model)  # what clone returns
    shape = sized.graph.inputs[0].shape
    assert shape is not None
    sized.graph.inputs[0].shape = ir.Shape([batch, *list(shape)[1:]])
    common.RemoveUnusedNodesPass()(sized)
    infer_anew(sized)
    return sized


def _free_shapes(model: ir.Model) -> ir.Model | None:
    """Return a copy in which constant shapes that begin with one image leave the batch open; None: there are none.

    A ``Reshape`` to ``[1, 512]`` becomes one to ``[-1, 512]``; to ``[1, -1]``, which already leaves a side open, one to
    ``[0, -1]``, where 0 is the first side of what it reads; a ``Resize`` to sizes becomes one by scales.
    """
    single = _sized(model, 1)
    resize_by_scales(single)
    changed = 0
    for node in single.graph:
        if node.domain or node.op_type != "Reshape" or node.inputs[1] is None:
            continue
        tensor = ir.convenience.get_const_tensor(node.inputs[1])
        sides = np.ones(0, np.int64) if tensor is None else tensor.numpy().astype(np.int64).ravel()
        if len(sides) < 2 or sides[0] != 1 or (0 in sides and node.attributes.get_int("allowzero", 0)):
            continue
        node.attributes.pop("allowzero", None)
        opened = sides.copy()
        opened[0] = 0 if -1 in sides[1:] else -1
        node.replace_input_with(1, constant(single, f"{node.outputs[0].name}_shape", opened))
        changed += 1
    if not changed and not any(node.op_type == "Resize" for node in single.graph):
        return None
    return _free(single)


def _state_shapes(
    model: ir.Model, expected: dict[str, np.ndarray], batch: int | str, preprocessing: Preprocessing
) -> None:
    """State the shapes of outputs that cannot be inferred, since an operator before them is not ONNX's own."""
    for value in model.graph.outputs:
        array = expected[str(value.name)]
        if (value.shape is None or len(value.shape) != array.ndim) and not (preprocessing.multiple and array.ndim > 2):
            value.shape = ir.Shape([batch, *array.shape[1:]])
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)


def _is_equal(
    model: ir.Model, images: np.ndarray, expected: dict[str, np.ndarray], threads: int | None, batch: int | None = None
) -> bool:
    """Return whether a graph gives, for each number of images, the rows that are expected; with a batch, for its first alone."""
    content = ir.to_proto(model).SerializeToString()
    names = [str(value.name) for value in model.graph.outputs]
    if set(names) != set(expected):
        return False
    try:
        opened = session(content, threads, "graph")
        whole = np.concatenate([images, *[images[-1:]] * max(0, (batch or 0) - len(images))])
        for count in (batch,) if batch else _BATCHES:
            found = run(opened, str(model.graph.inputs[0].name), whole[:count], names)
            for name, array in zip(names, found, strict=True):
                wanted = expected[name][:count]
                array = array[: len(wanted)]
                allowed = _CLOSE * max(float(np.abs(wanted).max()), 1e-6)
                if array.shape != wanted.shape or not np.abs(array - wanted).max() <= allowed:  # false for NaN
                    return False
    except (CheckpointError, RunError):
        return False
    return True
