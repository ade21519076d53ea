"""Graphs of vectors, rotations and embeddings with one thing wrong in their decoding: verification finds each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
import torch

from mtl_deploy.export.graph.borders import add_decoding
from mtl_deploy.export.verification.expected import run_network
from mtl_deploy.export.verification.verify import verify, with_logits
from mtl_deploy.runtime.backends.onnxruntime.backend import OnnxRuntimeBackend
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task

SIGNATURE = Signature(
    (
        Task.from_dict({"name": "box", "kind": "vector", "size": 4, "scales": [8, 8, 9, 9], "offsets": [4, 5, 28, 29]}),
        Task("pose", "rotation", size=6),
        Task.from_dict({"name": "rows", "kind": "rotation", "size": 6, "vectors": "rows"}),
        Task.from_dict({"name": "turned", "kind": "rotation", "size": 9, "vectors": "columns"}),
        Task.from_dict({"name": "identity", "kind": "embedding", "size": 5, "unit_length": True}),
    ),
    Preprocessing(4, 4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), input="float"),
)
IMAGES = np.random.default_rng(2).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        for task in SIGNATURE.tasks:
            self.add_module(task.name, torch.nn.Linear(48, task.size))

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        flat = image.flatten(1)
        return {task.name: self.get_submodule(task.name)(flat) for task in SIGNATURE.tasks}

    @property
    def in_float64(self) -> Network:
        return Network().double()


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """The network's heads as a graph, decoded as every export is."""
    network, nodes, constants, outputs = Network(), [], [], []
    for task in SIGNATURE.tasks:
        head = network.get_submodule(task.name)
        for word, value in (("weight", head.weight), ("bias", head.bias)):
            constants.append(onnx.numpy_helper.from_array(value.detach().numpy(), f"{task.name}.{word}"))
        inputs = ["flat", f"{task.name}.weight", f"{task.name}.bias"]
        nodes.append(onnx.helper.make_node("Gemm", inputs, [task.name], transB=1, name=task.name))
        outputs.append(onnx.helper.make_tensor_value_info(task.name, onnx.TensorProto.FLOAT, ["batch", task.size]))
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    nodes.insert(0, onnx.helper.make_node("Flatten", ["image"], ["flat"], axis=1, name="flat"))
    made = onnx.helper.make_graph(nodes, "heads", [image], outputs, constants)
    model = ir.from_proto(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9))
    add_decoding(model, SIGNATURE)
    return ir.to_proto(model)


def failed(model: onnx.ModelProto, precision: str = "fp32", tolerance: float = 1e-4) -> set[str]:
    content = with_logits(model.SerializeToString(), SIGNATURE)
    backend = OnnxRuntimeBackend(lambda: content, providers=["CPU"], threads=1)
    samples = [(IMAGES, run_network(Network().eval(), SIGNATURE, IMAGES, None))]
    rows = verify("fp32.onnx", backend, SIGNATURE, samples, tolerance=tolerance, batch=None, precision=precision)
    return {row.task for row in rows if not row.passed}


def constant(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    (found,) = (each for each in model.graph.initializer if each.name == name)
    values = np.ascontiguousarray(change(onnx.numpy_helper.to_array(found)))
    found.CopyFrom(onnx.numpy_helper.from_array(values, name))


def swapped(values: np.ndarray) -> np.ndarray:
    found = values.copy()
    found[[0, 1]] = found[[1, 0]]
    return found


def inputs_swapped(model: onnx.ModelProto, name: str) -> None:
    (node,) = (each for each in model.graph.node if each.name == name)
    node.input[0], node.input[1] = node.input[1], node.input[0]


WRONG: dict[str, tuple[str, Callable[[onnx.ModelProto], None]]] = {
    "two offsets swapped": ("box", lambda model: constant(model, "decode.box.offset", swapped)),
    "one scale a thousandth too large": (
        "box",
        lambda model: constant(model, "decode.box.scale", lambda v: v * np.array([1, 1, 1.001, 1], np.float32)),
    ),
    "values of another place": (
        "box",
        lambda model: constant(model, "box.weight", lambda v: v[[1, 0, 2, 3]]),
    ),
    "the matrix transposed": ("pose", lambda model: constant(model, "decode.pose.rows_columns", np.sort)),
    "the cross product the other way round": ("pose", lambda model: inputs_swapped(model, "decode/pose/cross")),
    "a left-handed turn of rows": ("rows", lambda model: inputs_swapped(model, "decode/rows/cross")),
    "second not at a right angle": (
        "rows",
        lambda model: constant(model, "decode.rows.b_columns", lambda v: v[[1, 0, 2]]),
    ),
    "rows for columns": ("turned", lambda model: constant(model, "decode.turned.rows_columns", np.sort)),
    "length squared": (
        "identity",
        lambda model: setattr(
            next(n for n in model.graph.node if n.name == "decode/identity/length"), "op_type", "Abs"
        ),
    ),
    "a value lost": (
        "identity",
        lambda model: constant(model, "identity.weight", lambda v: v * (np.arange(5) > 0)[:, None].astype(np.float32)),
    ),
}


def test_the_right_graph_passes_also_with_a_coarse_tolerance(graph: onnx.ModelProto) -> None:
    assert failed(graph) == set()
    assert failed(graph, "fp16", 0.01) == set()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_graph_is_found_and_named(graph: onnx.ModelProto, wrong: str, tmp_path: Path) -> None:
    task, change = WRONG[wrong]
    model = onnx.ModelProto.FromString(graph.SerializeToString())
    change(model)
    assert failed(model) == {task}
    if "thousandth" not in wrong:
        assert failed(model, "fp16", 0.01) == {task}
