from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mtl_deploy.export.graph.opset import NotExpressibleError, write_opset

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
IMAGE = np.random.default_rng(0).standard_normal((2, 5, 6, 7), dtype=np.float32)


def model_of(node: onnx.NodeProto, constants: dict[str, np.ndarray], outputs: int = 1) -> onnx.ModelProto:
    """Return a graph of opset 18 with one node: input ``x`` of IMAGE's shape, outputs ``y0``, ``y1``, ..."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info(f"y{i}", FLOAT, None) for i in range(outputs)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": IMAGE})


def axes(*numbers: int) -> dict[str, np.ndarray]:
    return {"axes": np.array(numbers, np.int64)}


EXPRESSIBLE = [
    pytest.param(helper.make_node("ReduceMean", ["x", "axes"], ["y0"], keepdims=0), axes(-1, 1), 1, id="ReduceMean"),
    pytest.param(helper.make_node("ReduceL2", ["x", "axes"], ["y0"]), axes(2), 1, id="ReduceL2"),
    pytest.param(helper.make_node("ReduceMax", ["x"], ["y0"]), {}, 1, id="ReduceMax-over-all"),
    pytest.param(helper.make_node("Split", ["x"], ["y0", "y1"], axis=1, num_outputs=2), {}, 2, id="uneven-Split"),
    pytest.param(
        helper.make_node("Resize", ["x", "", "scales"], ["y0"], mode="linear", antialias=0),
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        1,
        id="Resize",
    ),
    pytest.param(helper.make_node("Pad", ["x", "pads"], ["y0"]), {"pads": np.array([0, 0, 1, 1] * 2)}, 1, id="Pad"),
    pytest.param(helper.make_node("Relu", ["x"], ["y0"]), {}, 1, id="unchanged"),
]


@pytest.mark.parametrize(("node", "constants", "outputs"), EXPRESSIBLE)
def test_opset_17_computes_what_18_does(node: onnx.NodeProto, constants: dict[str, np.ndarray], outputs: int) -> None:
    model = model_of(node, constants, outputs)
    expected = run(model)
    lowered = ir.serde.deserialize_model(model)

    assert write_opset(lowered, 17) == 17
    proto = ir.serde.serialize_model(lowered)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == 17
    for found, wanted in zip(run(proto), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


NOT_EXPRESSIBLE = [
    pytest.param(
        helper.make_node("Resize", ["x", "", "scales"], ["y0"], mode="linear", antialias=1, name="shrink"),
        {"scales": np.array([1, 1, 0.5, 0.5], np.float32)},
        "antialias",
        id="antialias",
    ),
    pytest.param(helper.make_node("Mish", ["x"], ["y0"], name="shrink"), {}, "Mish", id="a-new-operator"),
    pytest.param(
        helper.make_node("Pad", ["x", "pads", "", "axes"], ["y0"], name="shrink"),
        {"pads": np.array([1, 1]), **axes(2)},
        "axes",
        id="Pad-with-axes",
    ),
]


@pytest.mark.parametrize(("node", "constants", "reason"), NOT_EXPRESSIBLE)
def test_what_17_cannot_express_is_named(node: onnx.NodeProto, constants: dict[str, np.ndarray], reason: str) -> None:
    model = ir.serde.deserialize_model(model_of(node, constants))
    with pytest.raises(NotExpressibleError, match=f"'shrink'.*{reason}.*--opset 18"):
        write_opset(model, 17)


@pytest.mark.parametrize(("node", "constants", "reason"), NOT_EXPRESSIBLE)
def test_without_a_wish_the_graph_keeps_18_where_17_does_not_serve(
    node: onnx.NodeProto, constants: dict[str, np.ndarray], reason: str
) -> None:
    model = ir.serde.deserialize_model(model_of(node, constants))
    before = ir.serde.serialize_model(model).graph.SerializeToString()

    assert write_opset(model, None) == 18
    assert ir.serde.serialize_model(model).graph.SerializeToString() == before
