from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mtl_deploy.calibration.int8.bias_correction import correct_bias

DATA = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)


def graph(*, bias: bool = True, shared: bool = False, last: str = "") -> onnx.ModelProto:
    """A product, decoded by a factor and a summand; optionally its bias serves another node, or a Sigmoid follows."""
    random = np.random.default_rng(1)
    weights = {
        "w": random.standard_normal((6, 2)).astype(np.float32),
        "b": np.array([0.5, -1.0], np.float32),
        "scale": np.float32(10),
        "offset": np.float32(3),
    }
    nodes = [
        helper.make_node("Gemm", ["image", "w", "b"] if bias else ["image", "w"], ["raw"], "head", beta=2.0),
        helper.make_node("Mul", ["raw", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["age"] if not last else ["moved"]),
    ]
    outputs = ["age"]
    if last:
        nodes.append(helper.make_node(last, ["moved"], ["age"]))
    if shared:
        nodes.append(helper.make_node("Add", ["raw", "b"], ["other"]))
        outputs.append("other")
    made = helper.make_graph(
        nodes,
        "regression",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items() if bias or name != "b"],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["age"], {"image": DATA})[0])


def test_the_output_moves_by_what_was_asked() -> None:
    model = graph()
    before = run(model)
    assert correct_bias(model, "age", np.array([0.25, -4.0]))
    np.testing.assert_allclose(run(model) - before, np.tile([0.25, -4.0], (5, 1)), atol=1e-5)


@pytest.mark.parametrize("options", [{"bias": False}, {"shared": True}, {"last": "Sigmoid"}], ids=str)
def test_what_cannot_be_moved_stays_as_it_was(options: dict[str, object]) -> None:
    model = graph(**options)  # type: ignore[arg-type]
    before = model.SerializeToString()
    assert not correct_bias(model, "age", np.array([1.0, 1.0]))
    assert model.SerializeToString() == before
    assert not correct_bias(graph(), "age", np.array([1.0, 1.0, 1.0]))
