"""A graph's file has the bytes of the protocol buffers' own serializer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mtl_deploy.calibration.graph import file
from mtl_deploy.calibration.graph.file import to_file, without_weights
from mtl_deploy.runtime.errors import TraceError

Array = np.ndarray


def graph(**weights: ir.TensorProtocol) -> ir.Model:
    """Return a graph that adds each weight to its input, in turn, with everything that a file can hold beside."""
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 3]))
    source, nodes, initializers = value, [], []
    for name, tensor in weights.items():
        weight = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        initializers.append(weight)
        nodes.append(ir.node("Identity", [weight], name=f"read {name}"))
        nodes.append(ir.node("Add", [value, source], {"note": "kept"}, name=f"add {name}"))
        value = nodes[-1].outputs[0]
        value.name, value.type, value.shape = f"sum {name}", source.type, source.shape
    inner = ir.Graph(
        [source], [value], nodes=nodes, initializers=initializers, opset_imports={"": 17, "own": 1}, name="g"
    )
    inner.doc_string = "of the graph"
    inner.metadata_props["graph"] = "yes"
    model = ir.Model(inner, ir_version=9, producer_name="test", producer_version="1", domain="d", model_version=3)
    model.doc_string = "of the model"
    model.metadata_props["model"] = "yes"
    return model


def array(shape: tuple[int, ...] = (3, 2), dtype: type = np.float32) -> Array:
    return np.random.default_rng(0).normal(0, 50, shape).astype(dtype)


def documented() -> ir.Tensor:
    tensor = ir.tensor(array(), name="w")
    tensor.doc_string = "a note"
    return tensor


WEIGHTS: dict[str, Callable[[], ir.TensorProtocol]] = {
    **{
        name: lambda name=name: ir.tensor(array(dtype=np.dtype(name).type), name="w")
        for name in ("float32", "float16", "float64", "int64", "int32", "uint8", "int8", "bool")
    },
    "scalar": lambda: ir.tensor(np.float32(2), name="w"),
    "empty": lambda: ir.tensor(np.zeros((0, 3), np.float32), name="w"),
    "not in order": lambda: ir.Tensor(array((40, 50)).T, name="w"),
    "large": lambda: ir.tensor(array((300, 300)), name="w"),
    "4 bits": lambda: ir.Tensor(array().astype(ir.DataType.INT4.numpy()), dtype=ir.DataType.INT4, name="w"),
    "bfloat16": lambda: ir.Tensor(array().astype(ir.DataType.BFLOAT16.numpy()), name="w"),
    "strings": lambda: ir.StringTensor([b"a", b"bc"], shape=ir.Shape([2]), name="w"),
    "of a file": lambda: ir.from_proto(onnx.numpy_helper.from_array(array(), "w")),
    "documented": documented,
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_bytes_are_those_of_the_usual_serializer(kind: str) -> None:
    model = graph(first=ir.tensor(array((2,)), name="other"), second=WEIGHTS[kind]())
    wanted = ir.to_proto(model).SerializeToString(deterministic=True)
    assert to_file(model) == wanted == to_file(model)
    onnx.load_from_string(wanted)


def test_a_graph_without_weights_and_one_read_from_a_file() -> None:
    model = graph()
    assert to_file(model) == ir.to_proto(model).SerializeToString(deterministic=True)
    read = ir.from_proto(onnx.load_from_string(to_file(graph(a=ir.tensor(array(), name="a")))))
    assert to_file(read) == ir.to_proto(read).SerializeToString(deterministic=True)


def test_weights_stay_where_they_are() -> None:
    model = graph(a=ir.tensor(array(), name="a"))
    held = model.graph.initializers["a"].const_value
    proto = without_weights(model)
    assert model.graph.initializers["a"].const_value is held
    assert not proto.graph.initializer
    assert [node.name for node in proto.graph.node] == ["read a", "add a"]


def test_what_one_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph(a=ir.tensor(array((100, 100)), name="a"))
    monkeypatch.setattr(file, "_LIMIT", len(to_file(model)))
    to_file(model)
    monkeypatch.setattr(file, "_LIMIT", len(to_file(model)) - 1)
    with pytest.raises(TraceError, match="one ONNX file holds 2 GiB at most"):
        to_file(model)
